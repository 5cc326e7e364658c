#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "facts.h"
#include "record.h"

struct cgroup cgroup_at(const char *root, char *name)
{
    char path[PATH_MAX];
    struct cgroup made = {root, name, false};
    if (snprintf(path, sizeof path, "%s/cgroup.controllers", root) < (int)sizeof path)
        made.v2 = access(path, F_OK) == 0;
    return made;
}

/* The path of a file of the cgroup under the v1 controller `kind`; false where there is none. */
static bool file_of(const struct cgroup *c, const char *kind, const char *name, char *path)
{
    if (c->name[0] == '\0')
        return false;
    const char *between = c->v2 ? "" : kind;
    int length = snprintf(path, PATH_MAX, "%s/%s/%s/%s", c->root, between, c->name, name);
    return length > 0 && length < PATH_MAX;
}

static size_t text_of(const struct cgroup *c, const char *kind, const char *name, char *text,
                      size_t size)
{
    char path[PATH_MAX];
    text[0] = '\0';
    return file_of(c, kind, name, path) ? read_small(AT_FDCWD, path, text, size) : 0;
}

static int64_t number_of(const struct cgroup *c, const char *kind, const char *name)
{
    char text[64];
    text_of(c, kind, name, text, sizeof text);
    return strtoll(text, NULL, 10);
}

/* The number in the row "KEY NUMBER" of a file, 0 if there is no such row. */
static int64_t row_of(const struct cgroup *c, const char *kind, const char *name, const char *key)
{
    char text[4096];
    size_t length = strlen(key);
    text_of(c, kind, name, text, sizeof text);
    for (char *row = text; row != NULL && *row != '\0';) {
        if (strncmp(row, key, length) == 0 && row[length] == ' ')
            return strtoll(row + length, NULL, 10);
        row = strchr(row, '\n');
        row = row != NULL ? row + 1 : NULL;
    }
    return 0;
}

static bool put(const struct cgroup *c, const char *kind, const char *name, const char *text)
{
    char path[PATH_MAX];
    if (!file_of(c, kind, name, path))
        return false;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write_all(fd, text, strlen(text));
    return close(fd) == 0 && done;
}

static void kill_each(const struct cgroup *c)
{
    char path[PATH_MAX];
    FILE *file = file_of(c, "pids", "cgroup.procs", path) ? fopen(path, "re") : NULL;
    long pid;
    while (file != NULL && fscanf(file, "%ld", &pid) == 1)
        if (pid > 1)
            kill((pid_t)pid, SIGKILL); /* one that is gone already is as good as killed */
    if (file != NULL)
        fclose(file);
}

void cgroup_kill(const struct cgroup *c)
{
    if (c->name[0] == '\0')
        return;
    if (c->v2 && put(c, "", "cgroup.kill", "1"))
        return;
    if (c->v2) { /* before Linux 5.14 */
        put(c, "", "cgroup.freeze", "1");
        kill_each(c);
        put(c, "", "cgroup.freeze", "0");
        return;
    }
    put(c, "freezer", "freezer.state", "FROZEN");
    kill_each(c);
    put(c, "freezer", "freezer.state", "THAWED");
}

static bool stands(const struct cgroup *c)
{
    char text[64];
    if (c->v2)
        return row_of(c, "", "cgroup.events", "frozen") == 1;
    text_of(c, "freezer", "freezer.state", text, sizeof text);
    return strncmp(text, "FROZEN", 6) == 0;
}

bool cgroup_freeze(const struct cgroup *c)
{
    int64_t until = monotonic_ns() + 5 * SECOND_NS;
    struct timespec pause = {0, 1000 * 1000};
    bool asked = c->v2 ? put(c, "", "cgroup.freeze", "1")
                       : put(c, "freezer", "freezer.state", "FROZEN");
    while (asked && monotonic_ns() < until) {
        if (stands(c))
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

bool cgroup_thaw(const struct cgroup *c)
{
    return c->v2 ? put(c, "", "cgroup.freeze", "0") : put(c, "freezer", "freezer.state", "THAWED");
}

int64_t cgroup_oom_kills(const struct cgroup *c)
{
    return row_of(c, "memory", c->v2 ? "memory.events" : "memory.oom_control", "oom_kill");
}

int64_t cgroup_cpu_ns(const struct cgroup *c)
{
    return c->v2 ? row_of(c, "", "cpu.stat", "usage_usec") * 1000
                 : number_of(c, "cpuacct", "cpuacct.usage");
}

int64_t cgroup_max_memory_bytes(const struct cgroup *c)
{
    return number_of(c, "memory", c->v2 ? "memory.peak" : "memory.max_usage_in_bytes");
}

/* Remove one folder; true once it is gone. */
static bool gone(const struct cgroup *c, const char *kind)
{
    char path[PATH_MAX];
    struct stat facts;
    if (!file_of(c, kind, "", path))
        return true;
    if (rmdir(path) == 0)
        return true;
    return stat(path, &facts) != 0;
}

bool cgroup_remove(const struct cgroup *c)
{
    if (c->name[0] == '\0')
        return true;
    if (c->v2)
        return gone(c, "");
    DIR *kinds = opendir(c->root);
    bool all = true;
    for (struct dirent *kind = kinds ? readdir(kinds) : NULL; kind; kind = readdir(kinds))
        if (kind->d_name[0] != '.' && strcmp(kind->d_name, "unified") != 0)
            all = gone(c, kind->d_name) && all;
    if (kinds != NULL)
        closedir(kinds);
    return all;
}
