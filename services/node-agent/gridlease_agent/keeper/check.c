#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"
#include "facts.h"
#include "keeper.h"
#include "record.h"
#include "usage.h"

/* The object in a file, written anew; 1 if it is none. */
static int check_json(const char *path)
{
    struct json json;
    if (!read_record(AT_FDCWD, path, &json))
        return 1;
    json_echo(stdout, &json, 0);
    json_free(&json);
    return fflush(stdout) == 0 ? 0 : 2;
}

static int check_usage(const char *path)
{
    static struct usage usage;
    enum usage_step step = USAGE_MORE;
    if (!usage_begin(&usage, AT_FDCWD, path))
        return 1;
    while (step == USAGE_MORE)
        step = usage_count(&usage, monotonic_ns() + MS_NS, INT64_MAX);
    printf("%lld %lld %d\n", (long long)usage.bytes, (long long)usage.files, usage.beyond);
    usage_end(&usage);
    return step == USAGE_DONE && fflush(stdout) == 0 ? 0 : 2;
}

static int check_cgroup(const char *root, char *name)
{
    struct cgroup cgroup = cgroup_at(root, name);
    printf("%lld %lld %lld\n", (long long)cgroup_oom_kills(&cgroup),
           (long long)cgroup_cpu_ns(&cgroup), (long long)cgroup_max_memory_bytes(&cgroup));
    cgroup_kill(&cgroup);
    return fflush(stdout) == 0 ? 0 : 2;
}

static int check_clocks(void)
{
    printf("%lld %lld %lld\n", (long long)minus(INT64_MIN, 1), (long long)minus(INT64_MAX, -1),
           (long long)times(INT64_MAX, 2));
    return fflush(stdout) == 0 ? 0 : 2;
}

int check(int argc, char **argv)
{
    const char *what = argv[0];
    if (strcmp(what, "contract") == 0 && argc == 1)
        return printf("%d\n", CONTRACT) > 0 && fflush(stdout) == 0 ? 0 : 2;
    if (strcmp(what, "clocks") == 0 && argc == 1)
        return check_clocks();
    if (strcmp(what, "json") == 0 && argc == 2)
        return check_json(argv[1]);
    if (strcmp(what, "usage") == 0 && argc == 2)
        return check_usage(argv[1]);
    if (strcmp(what, "cgroup") == 0 && argc == 3)
        return check_cgroup(argv[1], argv[2]);
    return 2;
}
