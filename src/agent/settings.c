/*
 * settings.c
 *	  The settings of tasker-agent: one table, from which come the flags, the
 *	  names in the environment and in the file, --help, and what doc/agent.md is
 *	  tested against.
 *
 * A flag goes before the environment, that before the file, and that before the
 * default.  SIGHUP reads the file anew; the rest can't have changed.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "log.h"
#include "settings.h"

#define ENVIRONMENT_PREFIX	"TASKER_AGENT_"

typedef enum SettingType
{
	TEXT,
	NUMBER,
	FLAG,						/* on or off */
	DURATION,					/* kept in milliseconds; without a unit, seconds */
	SIZE,						/* kept in bytes */
	CHOICE,						/* one of a list of words */
	WORDS						/* some of a list of words, with commas between */
} SettingType;

typedef struct Setting
{
	const char *name;
	SettingType type;
	const char *standard;		/* as it would be written; NULL: nothing */
	bool		reloads;		/* SIGHUP changes it */
	long long	least;			/* NUMBER, DURATION and SIZE */
	long long	most;
	const char *words;			/* CHOICE and WORDS: which there are */
	const char *value;			/* what --help calls the value */
	const char *help;
} Setting;

#define STAYS	false
#define RELOADS	true

static const Setting settings[] = {
	{"database", TEXT, NULL, STAYS, 0, 0, NULL, "CONNINFO",
	"connection string or URI of the database; otherwise libpq's environment says (PGHOST, PGSERVICE, ...)"},
	{"roles", WORDS, "http,rest", STAYS, 0, 0, "http,rest", "LIST",
	"what this copy does: http runs api steps, rest serves REST and the pages"},
	{"config", TEXT, NULL, STAYS, 0, 0, NULL, "FILE",
	"file with more of these settings, one a line: name = value"},
	{"log-level", CHOICE, "info", RELOADS, 0, 0, "debug,info,warning,error", "LEVEL",
	"the least that is worth a line in the log, which goes to stderr"},
	{"log-format", CHOICE, "text", RELOADS, 0, 0, "text,json", "FORMAT",
	"text or json, one object a line"},
	{"max-requests", NUMBER, "100", RELOADS, 1, 1000, NULL, "NUMBER",
	"http: requests under way at once"},
	{"max-requests-per-host", NUMBER, "100", RELOADS, 1, 1000, NULL, "NUMBER",
	"http: of them, to one host"},
	{"allow-hosts", TEXT, NULL, RELOADS, 0, 0, NULL, "LIST",
	"http: what api steps may reach although its address is not public: host, host:port, *.domain or network, with commas between"},
	{"allow-insecure", FLAG, "off", RELOADS, 0, 0, NULL, "BOOLEAN",
	"http: steps may do without a check of certificates (ssl: {verify: false})"},
	{"connect-to", TEXT, NULL, RELOADS, 0, 0, NULL, "LIST",
	"http: where to connect to in place of a host, HOST:PORT:OTHER-HOST:OTHER-PORT, with commas between"},
	{"tls-ca", TEXT, NULL, RELOADS, 0, 0, NULL, "FILE",
	"certificates to check other hosts by, PEM, in place of the system's"},
	{"namespaces", TEXT, NULL, STAYS, 0, 0, NULL, "LIST",
	"http: steps of tasks in these namespaces only, with commas between"},
	{"bound-to-session", FLAG, "on", STAYS, 0, 0, NULL, "BOOLEAN",
	"http: claims end with the connection that made them; never so behind a pooler"},
	{"lease", DURATION, "4s", STAYS, 1000, 3600000, NULL, "TIME",
	"http: how long a claim holds without a heartbeat where it is not bound to a session"},
	{"poll-interval", DURATION, "1s", STAYS, 100, 3600000, NULL, "TIME",
	"http: how often to look for steps where claims are not bound to a session, and so no bell is heard"},
	{"drain-timeout", DURATION, "30s", RELOADS, 0, 86400000, NULL, "TIME",
	"how long SIGTERM waits for what is under way"},
	{"listen", TEXT, "127.0.0.1:8080", STAYS, 0, 0, NULL, "ADDRESS",
	"where REST is served: ADDRESS:PORT, [ADDRESS]:PORT, port 0 for any that is free, or unix:PATH"},
	{"connections", NUMBER, "4", STAYS, 1, 1000, NULL, "N",
	"connections to the database that REST uses"},
	{"prepared", FLAG, "on", STAYS, 0, 0, NULL, NULL,
	"rest: connections keep prepared statements and listen for events; never so behind a pooler"},
	{"request-timeout", DURATION, "30s", RELOADS, 100, 3600000, NULL, "TIME",
	"how long a request may take to arrive, and the database to answer it"},
	{"idle-timeout", DURATION, "60s", STAYS, 1000, 3600000, NULL, "TIME",
	"how long a client may take for its next request, or to read an answer"},
	{"max-body", SIZE, "1MB", RELOADS, 1024, 1024 * 1024 * 256, NULL, "SIZE",
	"the longest body of a request"},
	{"max-connections", NUMBER, "2000", STAYS, 1, 1000000, NULL, "N",
	"clients that may be connected at once"},
	{"max-connections-per-address", NUMBER, "0", STAYS, 0, 1000000, NULL, "N",
	"how many of them from one address; 0: all"},
	{"max-streams", NUMBER, "500", RELOADS, 0, 1000000, NULL, "N",
	"streams of events that may be open at once"},
	{"cors-origins", TEXT, NULL, RELOADS, 0, 0, NULL, "LIST",
	"origins whose pages may read the answers, with commas between; *: all"},
	{"hosts", TEXT, NULL, RELOADS, 0, 0, NULL, "LIST",
	"names, beside addresses and localhost, by which REST may be called without credentials"},
	{"auth", CHOICE, "auto", STAYS, 0, 0, "auto,on,off", "WHEN",
	"whether REST asks for credentials: on, off, or auto: where others than this machine can connect"},
	{"jwt-key", TEXT, NULL, RELOADS, 0, 0, NULL, "FILE",
	"what JSON Web Tokens are signed by: a public key in PEM (RS256, ES256), else a secret (HS256)"},
	{"jwks", TEXT, NULL, RELOADS, 0, 0, NULL, "FILE-OR-URL",
	"the same as a JSON Web Key Set: a file, or a URL of https, or of http at this machine"},
	{"jwks-refresh", DURATION, "5min", RELOADS, 1000, 86400000, NULL, "TIME",
	"how often to fetch the key set of a URL; a token that names an unknown key has it fetched, too"},
	{"jwt-role-claim", TEXT, "role", RELOADS, 0, 0, NULL, "NAME",
	"claim that names the role of a request"},
	{"jwt-issuer", TEXT, NULL, RELOADS, 0, 0, NULL, "NAME",
	"issuer (iss) that a token must be of"},
	{"jwt-audience", TEXT, NULL, RELOADS, 0, 0, NULL, "NAME",
	"audience (aud) that a token must be for"},
	{"proxy-header", TEXT, NULL, STAYS, 0, 0, NULL, "NAME",
	"header by which a trusted proxy names the role of a request"},
	{"proxy-from", TEXT, NULL, STAYS, 0, 0, NULL, "LIST",
	"who is such a proxy: addresses, networks as 10.0.0.0/8, unix, with commas between"},
	{"pages", TEXT, TASKER_PAGES, STAYS, 0, 0, NULL, "DIRECTORY",
	"where the files of the pages are"},
	{"chart-js", TEXT, "/usr/share/javascript/chart.js/chart.min.js", STAYS, 0, 0, NULL, "FILE",
	"Chart.js, for the charts on the pages"},
};

#define SETTINGS	(sizeof(settings) / sizeof(settings[0]))

typedef enum Source
{
	FROM_DEFAULT,
	FROM_FILE,
	FROM_ENVIRONMENT,
	FROM_FLAG
} Source;

/* A reader in another thread never sees half of a change. */
typedef struct Value
{
	_Atomic(const char *) text;
	atomic_llong number;
} Value;

static Value values[SETTINGS];

/* What was said so far, which others see once all of it has been read. */
static struct
{
	const char *text;
	long long	number;
	Source		source;
}			said[SETTINGS];

static size_t
find(const char *name)
{
	for (size_t i = 0; i < SETTINGS; i++)
		if (strcmp(settings[i].name, name) == 0)
			return i;
	return SETTINGS;
}

/* One that the program itself asks for, so it is there. */
static Value *
known(const char *name, SettingType type)
{
	size_t		i = find(name);

	if (i == SETTINGS || settings[i].type != type)
	{
		complain("there is no setting \"%s\" of that type", name);
		abort();
	}
	return &values[i];
}

const char *
setting_text(const char *name)
{
	size_t		i = find(name);

	if (i == SETTINGS)
	{
		complain("there is no setting \"%s\"", name);
		abort();
	}
	return atomic_load(&values[i].text);
}

long
setting_number(const char *name)
{
	return (long) atomic_load(&known(name, NUMBER)->number);
}

bool
setting_flag(const char *name)
{
	return atomic_load(&known(name, FLAG)->number) != 0;
}

long
setting_ms(const char *name)
{
	return (long) atomic_load(&known(name, DURATION)->number);
}

long long
setting_bytes(const char *name)
{
	return atomic_load(&known(name, SIZE)->number);
}

bool
list_has(const char *list, const char *word)
{
	size_t		length = strlen(word);

	while (list != NULL && *list != '\0')
	{
		size_t		own = strcspn(list, ",");

		if (own == length && strncmp(list, word, length) == 0)
			return true;
		list += own;
		list += *list == ',';
	}
	return false;
}

typedef struct Unit
{
	const char *name;
	long long	factor;
} Unit;

static const Unit time_units[] = {
	{"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}, {"", 1000}, {NULL, 0}
};
static const Unit size_units[] = {
	{"B", 1}, {"kB", 1024}, {"MB", 1024 * 1024}, {"GB", 1024 * 1024 * 1024}, {"", 1}, {NULL, 0}
};
static const Unit no_units[] = {{"", 1}, {NULL, 0}};

static const Unit *
units_of(SettingType type)
{
	return type == DURATION ? time_units : type == SIZE ? size_units : no_units;
}

static bool
parse_quantity(const Setting *setting, const char *text, long long *number)
{
	char	   *end;
	long long	count;

	errno = 0;
	count = strtoll(text, &end, 10);
	if (end == text || errno != 0)
		return false;
	while (isspace((unsigned char) *end))
		end++;
	for (const Unit *unit = units_of(setting->type); unit->name != NULL; unit++)
		if (strcmp(end, unit->name) == 0 && count <= LLONG_MAX / unit->factor &&
			count >= LLONG_MIN / unit->factor)
		{
			*number = count * unit->factor;
			return *number >= setting->least && *number <= setting->most;
		}
	return false;
}

static bool
parse_flag(const char *text, long long *number)
{
	*number = list_has("on,true,yes,1", text);
	return *number || list_has("off,false,no,0", text);
}

/* Whether each word of the list is one of the setting's. */
static bool
are_words(const Setting *setting, const char *text)
{
	char	   *list = text_copy(text);
	char	   *rest = list;
	bool		ok = *text != '\0';

	for (char *word = strsep(&rest, ","); word != NULL; word = strsep(&rest, ","))
		ok = ok && list_has(setting->words, word);
	free(list);
	return ok;
}

/* What such a setting may be, for people. */
static const char *
range_of(const Setting *setting, char *buffer, size_t size)
{
	switch (setting->type)
	{
		case TEXT:
			return "";
		case FLAG:
			return "on or off";
		case CHOICE:
			snprintf(buffer, size, "one of %s", setting->words);
			return buffer;
		case WORDS:
			snprintf(buffer, size, "a list, with commas between, of %s", setting->words);
			return buffer;
		case NUMBER:
			snprintf(buffer, size, "a number from %lld to %lld", setting->least, setting->most);
			return buffer;
		case DURATION:
			snprintf(buffer, size, "a time from %lldms to %lldms, such as 500ms, 30s, 5min, 1h", setting->least, setting->most);
			return buffer;
		case SIZE:
			snprintf(buffer, size, "a size from %lldB to %lldB, such as 64kB or 1MB", setting->least, setting->most);
			return buffer;
	}
	return "";
}

/* A copy that is never freed, as another thread may be reading it, nor lost. */
static const char *
keep_text(const char *text)
{
	static struct Kept
	{
		struct Kept *next;
		char		text[];
	}		   *all = NULL;
	struct Kept *kept = allocate(sizeof(struct Kept) + strlen(text) + 1);

	kept->next = all;
	all = kept;
	return strcpy(kept->text, text);
}

/*
 * Takes a value from where it was said, unless something that goes before has
 * said another.  False, and it was said what is wrong.
 */
static bool
take(size_t i, const char *text, Source source, const char *where)
{
	const Setting *setting = &settings[i];
	long long	number = 0;
	bool		ok = true;
	char		buffer[200];
	const char *known_text;

	if (setting->type == FLAG)
		ok = parse_flag(text, &number);
	else if (setting->type == CHOICE)
		ok = strchr(text, ',') == NULL && are_words(setting, text);
	else if (setting->type == WORDS)
		ok = are_words(setting, text);
	else if (setting->type != TEXT)
		ok = parse_quantity(setting, text, &number);
	if (!ok)
	{
		complain("%s: \"%s\" is no value of %s: it is %s", where, text, setting->name,
				 range_of(setting, buffer, sizeof(buffer)));
		return false;
	}
	if (said[i].source > source)
		return true;

	known_text = atomic_load(&values[i].text);
	said[i].text = known_text != NULL && strcmp(known_text, text) == 0 ? known_text : keep_text(text);
	said[i].number = number;
	said[i].source = source;
	return true;
}

static void
take_default(size_t i)
{
	said[i].source = FROM_DEFAULT;
	said[i].text = NULL;
	if (settings[i].standard != NULL)
		(void) take(i, settings[i].standard, FROM_DEFAULT, "default");
}

/* From now on that is its value, for all threads. */
static void
publish(size_t i)
{
	atomic_store(&values[i].text, said[i].text);
	atomic_store(&values[i].number, said[i].number);
}

/* Where the file and the environment write underscores. */
static void
to_flag_name(char *name)
{
	for (char *c = name; *c != '\0'; c++)
		*c = *c == '_' ? '-' : *c;
}

static void
environment_name(const Setting *setting, char *buffer, size_t size)
{
	snprintf(buffer, size, ENVIRONMENT_PREFIX "%s", setting->name);
	for (char *c = buffer; *c != '\0'; c++)
		*c = *c == '-' ? '_' : (char) toupper((unsigned char) *c);
}

static bool
read_environment(void)
{
	bool		ok = true;

	for (size_t i = 0; i < SETTINGS; i++)
	{
		char		name[100];
		const char *text;

		environment_name(&settings[i], name, sizeof(name));
		text = getenv(name);
		if (text != NULL)
			ok = take(i, text, FROM_ENVIRONMENT, name) && ok;
	}
	return ok;
}

/* One --name, --name=value, --name value or --no-name; argument is moved on. */
static bool
read_flag(int argc, char **argv, int *argument)
{
	char	   *name = text_copy(argv[*argument] + 2);
	char	   *sign = strchr(name, '=');
	const char *value = sign == NULL ? NULL : sign + 1;
	size_t		i;
	bool		ok = false;

	if (sign != NULL)
		*sign = '\0';
	i = find(name);
	if (i == SETTINGS && strncmp(name, "no-", 3) == 0 && value == NULL)
	{
		i = find(name + 3);
		if (i < SETTINGS && settings[i].type == FLAG)
			value = "off";
		else
			i = SETTINGS;
	}
	else if (i < SETTINGS && settings[i].type == FLAG && value == NULL)
		value = "on";
	else if (i < SETTINGS && value == NULL && *argument + 1 < argc)
		value = argv[++*argument];
	if (i == SETTINGS)
		complain("unknown option \"--%s\"; --help lists them", name);
	else if (value == NULL)
		complain("option --%s needs a value", name);
	else
		ok = take(i, value, FROM_FLAG, argv[*argument]);
	free(name);
	return ok;
}

static bool
read_flags(int argc, char **argv)
{
	bool		ok = true;

	for (int i = 1; i < argc; i++)
	{
		if (strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '\0')
			ok = read_flag(argc, argv, &i) && ok;
		else
		{
			complain("unknown subcommand or option \"%s\"", argv[i]);
			ok = false;
		}
	}
	return ok;
}

/* Without what stands before and behind it; in place. */
static char *
trim(char *text)
{
	size_t		length;

	while (isspace((unsigned char) *text))
		text++;
	length = strlen(text);
	while (length > 0 && isspace((unsigned char) text[length - 1]))
		text[--length] = '\0';
	return text;
}

/* name = value; the value may stand in single quotes. */
static bool
read_line(char *line, const char *where)
{
	char	   *value = strchr(line, '=');
	char	   *name;
	size_t		length;
	size_t		i;

	line = trim(line);
	if (*line == '\0' || *line == '#')
		return true;
	if (value == NULL)
	{
		complain("%s: a line is name = value", where);
		return false;
	}
	*value++ = '\0';
	name = trim(line);
	value = trim(value);
	to_flag_name(name);
	i = find(name);
	if (i == SETTINGS || strcmp(name, "config") == 0)
	{
		complain("%s: there is no setting \"%s\" for a file", where, name);
		return false;
	}
	length = strlen(value);
	if (length >= 2 && value[0] == '\'' && value[length - 1] == '\'')
	{
		value[length - 1] = '\0';
		value++;
	}
	return take(i, value, FROM_FILE, where);
}

static bool
read_file(const char *path)
{
	FILE	   *file = fopen(path, "r");
	char	   *line = NULL;
	size_t		space = 0;
	int			number = 0;
	bool		ok = true;

	if (file == NULL)
	{
		complain("could not open %s: %s", path, strerror(errno));
		return false;
	}
	while (getline(&line, &space, file) >= 0)
	{
		char	   *where = text_format("%s:%d", path, ++number);

		ok = read_line(line, where) && ok;
		free(where);
	}
	if (ferror(file))
	{
		complain("could not read %s: %s", path, strerror(errno));
		ok = false;
	}
	free(line);
	fclose(file);
	return ok;
}

bool
settings_read(int argc, char **argv)
{
	bool		ok;

	for (size_t i = 0; i < SETTINGS; i++)
		take_default(i);
	ok = read_flags(argc, argv);
	ok = read_environment() && ok;
	if (ok && said[find("config")].text != NULL)
		ok = read_file(said[find("config")].text);
	for (size_t i = 0; i < SETTINGS; i++)
		publish(i);
	return ok;
}

bool
settings_reload(void)
{
	const char *path = setting_text("config");
	Source		old_source[SETTINGS];
	bool		ok;

	if (path == NULL)
		return true;
	for (size_t i = 0; i < SETTINGS; i++)
	{
		old_source[i] = said[i].source;
		if (old_source[i] == FROM_FILE)
			take_default(i);
	}
	ok = read_file(path);
	for (size_t i = 0; i < SETTINGS; i++)
	{
		const char *text = said[i].text;
		const char *old_text = atomic_load(&values[i].text);
		bool		changed = strcmp(text ? text : "", old_text ? old_text : "") != 0;

		if (ok && (settings[i].reloads || !changed))
		{
			publish(i);
			continue;
		}
		if (ok)
			log_line(LOG_WARNING, "a setting has changed, which takes a restart", "setting", settings[i].name, NULL);
		said[i].text = old_text;
		said[i].number = atomic_load(&values[i].number);
		said[i].source = old_source[i];
	}
	return ok;
}

void
settings_print_help(FILE *file)
{
	for (size_t i = 0; i < SETTINGS; i++)
	{
		const Setting *setting = &settings[i];

		if (setting->type == FLAG)
			fprintf(file, "  --[no-]%s\n", setting->name);
		else
			fprintf(file, "  --%s %s\n", setting->name, setting->value);
		fprintf(file, "        %s", setting->help);
		if (setting->standard != NULL)
			fprintf(file, " (default: %s)", setting->standard);
		if (setting->reloads)
			fputs("; SIGHUP changes it", file);
		fputc('\n', file);
	}
}
