/*
 * dag.c
 *	  The graph of a definition: levels, edges in both directions, cycles.
 *
 * In time and memory proportional to steps plus edges, whatever the number of
 * paths: a graph with few steps can have more paths than there are atoms.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "tasker.h"

/* Reporting more cycles than that helps nobody. */
#define MAX_CYCLES	20

/* Neighbours of every step, one after the other: step n's begin at start[n]. */
typedef struct Neighbours
{
	int		   *start;			/* step_count + 2 entries; steps count from 1 */
	int16	   *step;
} Neighbours;

typedef struct Graph
{
	int			step_count;
	Neighbours	parents;
	Neighbours	children;
	int		   *level;			/* longest path to the step; -1: in or behind a cycle */
} Graph;

PG_FUNCTION_INFO_V1(tasker_graph);
PG_FUNCTION_INFO_V1(tasker_cycles);
PG_FUNCTION_INFO_V1(tasker_redundant_edges);

/*
 * Turns neighbours round.  Because steps are walked in rising order, each list
 * of the result rises, and equal edges lie side by side and are kept once.
 */
static Neighbours
reverse(int step_count, Neighbours from)
{
	Neighbours	to;
	int			edge_count = from.start[step_count + 1];
	int		   *fill;
	int			kept = 0;

	to.start = palloc0((step_count + 2) * sizeof(int));
	to.step = palloc_extended(Max(edge_count, 1) * sizeof(int16), MCXT_ALLOC_HUGE);
	fill = palloc((step_count + 2) * sizeof(int));

	for (int i = 0; i < edge_count; i++)
		to.start[from.step[i] + 1]++;
	for (int step = 1; step <= step_count + 1; step++)
		to.start[step] += to.start[step - 1];
	memcpy(fill, to.start, (step_count + 2) * sizeof(int));

	for (int step = 1; step <= step_count; step++)
	{
		for (int i = from.start[step]; i < from.start[step + 1]; i++)
		{
			int			other = from.step[i];

			if (fill[other] > to.start[other] && to.step[fill[other] - 1] == step)
				continue;
			to.step[fill[other]++] = step;
		}
	}

	/* close the gaps that edges given twice have left */
	for (int step = 1; step <= step_count; step++)
	{
		int			begin = to.start[step];
		int			length = fill[step] - begin;

		memmove(to.step + kept, to.step + begin, length * sizeof(int16));
		to.start[step] = kept;
		kept += length;
	}
	to.start[step_count + 1] = kept;
	pfree(fill);
	return to;
}

/* Edges as they came, grouped by parent. */
static Neighbours
group_edges(int step_count, int edge_count, const int32 *children, const int32 *parents)
{
	Neighbours	grouped;
	int		   *fill;

	grouped.start = palloc0((step_count + 2) * sizeof(int));
	grouped.step = palloc_extended(Max(edge_count, 1) * sizeof(int16), MCXT_ALLOC_HUGE);
	fill = palloc((step_count + 2) * sizeof(int));

	for (int i = 0; i < edge_count; i++)
	{
		if (children[i] < 1 || children[i] > step_count ||
			parents[i] < 1 || parents[i] > step_count)
			elog(ERROR, "edge from step %d to step %d is outside of a graph of %d steps",
				 parents[i], children[i], step_count);
		grouped.start[parents[i] + 1]++;
	}
	for (int step = 1; step <= step_count + 1; step++)
		grouped.start[step] += grouped.start[step - 1];
	memcpy(fill, grouped.start, (step_count + 2) * sizeof(int));
	for (int i = 0; i < edge_count; i++)
		grouped.step[fill[parents[i]]++] = children[i];
	pfree(fill);
	return grouped;
}

/*
 * Levels, by taking away steps that wait for nothing any more.  A step that is
 * never taken keeps level -1.
 */
static int *
compute_levels(const Graph *graph)
{
	int			count = graph->step_count;
	int		   *level = palloc((count + 1) * sizeof(int));
	int		   *missing = palloc((count + 1) * sizeof(int));
	int16	   *ready = palloc((count + 1) * sizeof(int16));
	int			head = 0;
	int			tail = 0;

	for (int step = 1; step <= count; step++)
	{
		missing[step] = graph->parents.start[step + 1] - graph->parents.start[step];
		level[step] = -1;
		if (missing[step] == 0)
		{
			level[step] = 0;
			ready[tail++] = step;
		}
	}

	/*
	 * Steps come out of the list in the order of their levels, so the parent
	 * that was taken last is the one on the longest path.
	 */
	while (head < tail)
	{
		int			step = ready[head++];

		CHECK_FOR_INTERRUPTS();
		for (int i = graph->children.start[step]; i < graph->children.start[step + 1]; i++)
		{
			int			child = graph->children.step[i];

			if (--missing[child] == 0)
			{
				level[child] = level[step] + 1;
				ready[tail++] = child;
			}
		}
	}
	pfree(missing);
	pfree(ready);
	return level;
}

/* The graph from the arguments step_count, children and parents. */
static Graph *
read_graph(FunctionCallInfo fcinfo)
{
	Graph	   *graph = palloc(sizeof(Graph));
	ArrayType  *children = PG_GETARG_ARRAYTYPE_P(1);
	ArrayType  *parents = PG_GETARG_ARRAYTYPE_P(2);
	int			edge_count = ArrayGetNItems(ARR_NDIM(children), ARR_DIMS(children));

	graph->step_count = PG_GETARG_INT32(0);
	if (graph->step_count < 0 || graph->step_count > TASKER_MAX_STEPS)
		elog(ERROR, "a graph of %d steps is too large", graph->step_count);
	if (ARR_HASNULL(children) || ARR_HASNULL(parents) ||
		edge_count != ArrayGetNItems(ARR_NDIM(parents), ARR_DIMS(parents)))
		elog(ERROR, "edges of a graph must be two arrays of the same length without nulls");

	graph->parents = reverse(graph->step_count,
							 group_edges(graph->step_count, edge_count,
										 (int32 *) ARR_DATA_PTR(children),
										 (int32 *) ARR_DATA_PTR(parents)));
	graph->children = reverse(graph->step_count, graph->parents);
	graph->level = compute_levels(graph);
	return graph;
}

/* Steps as smallint[]. */
static Datum
step_array(const int16 *steps, int count)
{
	Datum	   *elements = palloc(Max(count, 1) * sizeof(Datum));
	ArrayType  *array;

	for (int i = 0; i < count; i++)
		elements[i] = Int16GetDatum(steps[i]);
	array = construct_array(elements, count, INT2OID, sizeof(int16), true, TYPALIGN_SHORT);
	pfree(elements);
	return PointerGetDatum(array);
}

static Datum
neighbour_array(const Neighbours *neighbours, int step)
{
	int			begin = neighbours->start[step];

	return step_array(neighbours->step + begin, neighbours->start[step + 1] - begin);
}

/* A row for every step: its number, parents, children and level. */
Datum
tasker_graph(PG_FUNCTION_ARGS)
{
	Graph	   *graph = read_graph(fcinfo);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int step = 1; step <= graph->step_count; step++)
	{
		Datum		values[4];
		bool		nulls[4] = {false, false, false, false};

		CHECK_FOR_INTERRUPTS();
		values[0] = Int16GetDatum(step);
		values[1] = neighbour_array(&graph->parents, step);
		values[2] = neighbour_array(&graph->children, step);
		values[3] = Int16GetDatum(graph->level[step]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		pfree(DatumGetPointer(values[1]));
		pfree(DatumGetPointer(values[2]));
	}
	return (Datum) 0;
}

/* Gives out the cycle path[0] -> ... -> path[length - 1], lowest step first. */
static void
put_cycle(ReturnSetInfo *rsinfo, const int16 *path, int length)
{
	int16	   *cycle = palloc(length * sizeof(int16));
	int			lowest = 0;
	Datum		value;
	bool		is_null = false;

	for (int i = 1; i < length; i++)
		if (path[i] < path[lowest])
			lowest = i;
	for (int i = 0; i < length; i++)
		cycle[i] = path[(lowest + i) % length];
	value = step_array(cycle, length);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &is_null);
	pfree(DatumGetPointer(value));
	pfree(cycle);
}

/*
 * Cycles, each as its steps in the order in which one depends on the next.
 *
 * A walk in depth finds an edge back to a step that is still on its path
 * wherever there is a cycle, and without those edges there is none.  One cycle
 * for each such edge is therefore enough to repair the definition; counting all
 * cycles could take for ever.
 */
Datum
tasker_cycles(PG_FUNCTION_ARGS)
{
	Graph	   *graph = read_graph(fcinfo);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			count = graph->step_count;
	int16	   *path = palloc((count + 1) * sizeof(int16));
	int		   *next_edge = palloc((count + 1) * sizeof(int));
	int		   *depth = palloc0((count + 1) * sizeof(int)); /* on the path: place + 1 */
	bool	   *seen = palloc0((count + 1) * sizeof(bool));
	int			found = 0;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int root = 1; root <= count; root++)
	{
		int			length = 0;

		if (seen[root] || graph->level[root] >= 0)
			continue;
		seen[root] = true;
		path[length++] = root;
		depth[root] = length;
		next_edge[root] = graph->parents.start[root];

		while (length > 0)
		{
			int			step = path[length - 1];
			int			parent;

			CHECK_FOR_INTERRUPTS();
			if (next_edge[step] == graph->parents.start[step + 1])
			{
				depth[step] = 0;
				length--;
				continue;
			}
			parent = graph->parents.step[next_edge[step]++];
			if (depth[parent] > 0)
			{
				put_cycle(rsinfo, path + depth[parent] - 1, length - depth[parent] + 1);
				if (++found == MAX_CYCLES)
					return (Datum) 0;
			}
			else if (!seen[parent] && graph->level[parent] < 0)
			{
				seen[parent] = true;
				path[length++] = parent;
				depth[parent] = length;
				next_edge[parent] = graph->parents.start[parent];
			}
		}
	}
	return (Datum) 0;
}

/* Steps in the order of their levels: parents before children. */
static int16 *
order_by_level(const Graph *graph)
{
	int			count = graph->step_count;
	int		   *start = palloc0((count + 2) * sizeof(int));
	int16	   *order = palloc(Max(count, 1) * sizeof(int16));

	for (int step = 1; step <= count; step++)
	{
		if (graph->level[step] < 0)
			elog(ERROR, "the graph has a cycle");
		start[graph->level[step] + 1]++;
	}
	for (int level = 1; level <= count; level++)
		start[level] += start[level - 1];
	for (int step = 1; step <= count; step++)
		order[start[graph->level[step]]++] = step;
	pfree(start);
	return order;
}

/*
 * Edges that other edges imply: from a step to one that is behind another of its
 * parents.  A set of bits for each step says what is before it; of the most steps
 * there can be they take 33 MB, and each edge costs a union of two.
 */
Datum
tasker_redundant_edges(PG_FUNCTION_ARGS)
{
	Graph	   *graph = read_graph(fcinfo);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			count = graph->step_count;
	int			words = count / 64 + 1;
	uint64	   *before = palloc0((Size) (count + 1) * words * sizeof(uint64));
	int16	   *order = order_by_level(graph);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < count; i++)
	{
		int			step = order[i];
		uint64	   *own = before + (Size) step * words;
		const int16 *parents = graph->parents.step + graph->parents.start[step];
		int			parent_count = graph->parents.start[step + 1] - graph->parents.start[step];

		CHECK_FOR_INTERRUPTS();
		for (int p = 0; p < parent_count; p++)
			for (int word = 0; word < words; word++)
				own[word] |= before[(Size) parents[p] * words + word];
		for (int p = 0; p < parent_count; p++)
		{
			uint64	   *word = &own[parents[p] / 64];
			uint64		bit = UINT64CONST(1) << parents[p] % 64;

			if (*word & bit)
			{
				Datum		values[2] = {Int16GetDatum(step), Int16GetDatum(parents[p])};
				bool		nulls[2] = {false, false};

				tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
			}
			*word |= bit;
		}
	}
	return (Datum) 0;
}
