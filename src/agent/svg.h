/*
 * svg.h
 *	  Diagrams as SVG, laid out by Graphviz in a process of its own.
 */
#ifndef TASKER_AGENT_SVG_H
#define TASKER_AGENT_SVG_H

#include <stdbool.h>
#include <stddef.h>

/* By this argument the program knows that it is the process that draws. */
#define SVG_CHILD "--svg-child"

typedef enum SvgResult
{
	SVG_DRAWN,
	SVG_TOO_LARGE,				/* and will always be */
	SVG_FAILED
} SvgResult;

extern SvgResult svg_render(const char *dot, size_t length, char **svg, size_t *svg_length,
							const char **why);
extern void svg_stop(void);
extern int	svg_child(void);
extern int	svg_files(int count, char *const *paths);

#endif							/* TASKER_AGENT_SVG_H */
