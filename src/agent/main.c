/*
 * main.c
 *	  The command line of tasker-agent.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"
#include "role.h"
#include "settings.h"
#include "svg.h"

static const char usage_text[] =
"usage: tasker-agent [OPTION...]\n"
"       tasker-agent apply DIRECTORY [OPTION...]\n"
"       tasker-agent svg [FILE...]\n"
"       tasker-agent --help | --version\n"
"\n"
"Without a subcommand it runs steps of the type api, serves REST and the pages, and\n"
"prints one line when it is ready.  SIGTERM lets it finish what is under way, SIGHUP\n"
"has it read its file anew.  An option may stand in the environment, too\n"
"(TASKER_AGENT_LOG_LEVEL), or in the file that --config names (log_level = debug).\n"
"\n"
"apply registers every definition (*.yaml, *.yml, *.json) below DIRECTORY in one\n"
"transaction, and prints what that changes:\n"
"  --database CONNINFO   where; otherwise libpq's environment says (PGHOST, ...)\n"
"  --environment NAME    the environment that their tasks follow\n"
"  --dry-run             print what it would change, and change nothing\n"
"  --no-replace          a definition that is registered with another text is an error\n"
"  --lint                print what is unwise in them, too\n"
"\n"
"svg prints as SVG what tasker.task_diagram(ID, 'dot') and template_diagram() say:\n"
"those in the files, or the one on standard input.\n"
"\n"
"Exit status: 0 done, 1 an error, and nothing was changed, 2 a wrong command line.\n"
"\n"
"Options without a subcommand, each with its default:\n";

static void
print_usage(FILE *file)
{
	fputs(usage_text, file);
	settings_print_help(file);
}

static int
usage_error(void)
{
	print_usage(stderr);
	return EXIT_USAGE;
}

/*
 * tasker-agent apply ...; argv[0] is the subcommand.
 */
static int
main_apply(int argc, char **argv)
{
	static const struct option known[] = {
		{"database", required_argument, NULL, 'd'},
		{"environment", required_argument, NULL, 'e'},
		{"dry-run", no_argument, NULL, 'n'},
		{"no-replace", no_argument, NULL, 'r'},
		{"lint", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	ApplyOptions options = {0};
	int			option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
	{
		switch (option)
		{
			case 'd':
				options.database = optarg;
				break;
			case 'e':
				options.environment = optarg;
				break;
			case 'n':
				options.dry_run = true;
				break;
			case 'r':
				options.no_replace = true;
				break;
			case 'l':
				options.lint = true;
				break;
			case 'h':
				print_usage(stdout);
				return EXIT_OK;
			default:
				return usage_error();
		}
	}
	if (argc - optind != 1)
	{
		complain(optind == argc ? "apply needs a directory" : "apply takes one directory");
		return usage_error();
	}
	options.directory = argv[optind];
	return apply(&options);
}

/*
 * tasker-agent svg [FILE...]
 */
static int
main_svg(int argc, char **argv)
{
	static const struct option known[] = {
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	int			option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
	{
		if (option != 'h')
			return usage_error();
		print_usage(stdout);
		return EXIT_OK;
	}
	return svg_files(argc - optind, argv + optind);
}

/* A short hint, as all the options would hide what was said to be wrong. */
static int
main_run(int argc, char **argv)
{
	if (settings_read(argc, argv))
		return run_roles();
	fputs("usage: tasker-agent [OPTION...] | apply DIRECTORY [OPTION...] | --help | --version\n", stderr);
	return EXIT_USAGE;
}

typedef struct Subcommand
{
	const char *name;
	int			(*run) (int argc, char **argv);
} Subcommand;

static const Subcommand subcommands[] = {
	{"apply", main_apply},
	{"svg", main_svg},
};

static int
run(int argc, char **argv)
{
	if (argc < 2)
		return main_run(argc, argv);
	if (strcmp(argv[1], SVG_CHILD) == 0)
		return svg_child();
	if (strcmp(argv[1], "--help") == 0)
	{
		print_usage(stdout);
		return EXIT_OK;
	}
	if (strcmp(argv[1], "--version") == 0)
	{
		puts("tasker-agent " TASKER_VERSION);
		return EXIT_OK;
	}
	for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++)
		if (strcmp(argv[1], subcommands[i].name) == 0)
			return subcommands[i].run(argc - 1, argv + 1);
	return main_run(argc, argv);
}

int
main(int argc, char **argv)
{
	int			status;

	/* In a pipeline's log it stands in one order with what goes to stderr. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	status = run(argc, argv);

	/* What could not be printed was not said. */
	if (fflush(stdout) != 0 || ferror(stdout))
	{
		complain("could not write: %s", strerror(errno));
		return EXIT_FAILED;
	}
	return status;
}
