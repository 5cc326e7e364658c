#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper.h"
#include "record.h"

struct bind {
    char *source, *target; /* the target under the stage */
    bool read_only;
};

bool make_folders(const char *path)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part)
        return false;
    memcpy(part, path, length + 1);
    for (char *at = part + 1; *at != '\0'; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return false;
        *at = '/';
    }
    struct stat facts;
    return mkdir(part, 0755) == 0 ||
           (errno == EEXIST && stat(part, &facts) == 0 && S_ISDIR(facts.st_mode));
}

static bool make_parents(const char *path)
{
    char part[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
        return true;
    size_t length = (size_t)(slash - path);
    if (length >= sizeof part)
        return false;
    memcpy(part, path, length);
    part[length] = '\0';
    return make_folders(part);
}

/* "FIRST/SECOND" in `path`; false where it is too long. */
static bool join(char *path, const char *first, const char *second)
{
    int length = snprintf(path, PATH_MAX, "%s/%s", first, second);
    return length > 0 && length < PATH_MAX;
}

/* Something of the kind of `source` at `target`, to mount it on. */
static bool place(const char *source, const char *target)
{
    struct stat facts;
    if (!make_parents(target))
        return false;
    if (stat(source, &facts) == 0 && S_ISDIR(facts.st_mode))
        return make_folders(target);
    if (access(target, F_OK) == 0)
        return true;
    int fd = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    return fd >= 0 && close(fd) == 0;
}

static int mount_bind(struct keeper *k, const struct bind *bind)
{
    /* Here, not only in crun's options: its bind of a bind that is already there keeps these. */
    unsigned long flags = MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV;
    if (bind->read_only)
        flags |= MS_RDONLY;
    if (!place(bind->source, bind->target) ||
        mount(bind->source, bind->target, NULL, MS_BIND | MS_REC, NULL) != 0 ||
        mount("none", bind->target, NULL, flags, NULL) != 0)
        return trouble(k, "START_FAILED", "mount %s: %s", bind->source, strerror(errno));
    return 0;
}

/* The host's own mounts stay as they are: what is mounted from here on is seen by nobody else. */
static int leave_namespace(struct keeper *k)
{
    if (unshare(CLONE_NEWNS) != 0)
        return trouble(k, "START_FAILED", "unshare the mount namespace: %s", strerror(errno));
    if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) != 0)
        return trouble(k, "START_FAILED", "mount /: %s", strerror(errno));
    if (access(CGROUPS "/unified", F_OK) == 0 && !k->cgroup.v2) {
        /* crun 1.8.1 refuses hybrid cgroups as soon as the v2 tree holds a controller. It still
         * makes folders there: the tmpfs takes them along when all is over. */
        (void)umount2(CGROUPS "/unified", MNT_DETACH);
        if (mount("tmpfs", CGROUPS "/unified", "tmpfs", MS_NOSUID, "size=1m") != 0)
            return trouble(k, "START_FAILED", "mount " CGROUPS "/unified: %s", strerror(errno));
    }
    if (!make_folders(k->plan.stage) ||
        mount("tmpfs", k->plan.stage, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m") != 0)
        return trouble(k, "START_FAILED", "mount %s: %s", k->plan.stage, strerror(errno));
    return 0;
}

/* The links and files that the specification names: rows of [path under the stage, text]. */
static int write_rows(struct keeper *k, const char *member, bool links)
{
    uint32_t rows = json_get(&k->spec, 0, member);
    for (uint32_t row = json_first(&k->spec, rows); row; row = json_next(&k->spec, rows, row)) {
        char path[PATH_MAX];
        char *name = json_text(&k->spec, json_at(&k->spec, row, 0));
        char *text = json_text(&k->spec, json_at(&k->spec, row, 1));
        bool good = name && text && join(path, k->plan.stage, name) && make_parents(path);
        if (good && links) {
            good = symlink(text, path) == 0;
        } else if (good) {
            int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
            good = fd >= 0 && write_all(fd, text, strlen(text));
            good = fd >= 0 && close(fd) == 0 && good;
        }
        if (!good)
            (void)trouble(k, "START_FAILED", "stage %s: %s", name ? name : "?", strerror(errno));
        free(name);
        free(text);
        if (!good)
            return -1;
    }
    return 0;
}

static void free_binds(struct bind *binds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(binds[i].source);
        free(binds[i].target);
    }
    free(binds);
}

/* The specification's binds; NULL where they make no sense or there is no memory. */
static struct bind *read_binds(struct keeper *k, size_t *count)
{
    uint32_t rows = json_get(&k->spec, 0, "binds");
    size_t most = 1;
    *count = 0;
    for (uint32_t row = json_first(&k->spec, rows); row; row = json_next(&k->spec, rows, row))
        most++;
    struct bind *binds = calloc(most, sizeof *binds);
    if (binds == NULL)
        return NULL;
    for (uint32_t row = json_first(&k->spec, rows); row; row = json_next(&k->spec, rows, row)) {
        struct bind *bind = &binds[(*count)++];
        char path[PATH_MAX];
        char *name = json_text(&k->spec, json_at(&k->spec, row, 1));
        bind->source = json_text(&k->spec, json_at(&k->spec, row, 0));
        bind->read_only = json_is(&k->spec, json_at(&k->spec, row, 2), JSON_TRUE);
        bind->target = name && join(path, k->plan.stage, name) ? strdup(path) : NULL;
        free(name);
        if (bind->source == NULL || bind->target == NULL) {
            free_binds(binds, *count);
            return NULL;
        }
    }
    return binds;
}

/* What lies behind a mount's source: a bind's origin, a file of the host, or else a folder. */
static const char *origin(const char *source, const struct bind *binds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(binds[i].target, source) == 0)
            return binds[i].source;
    return source[0] == '/' && access(source, F_OK) == 0 ? source : "/";
}

/* The mapped root may not make the mount points: they are here beforehand. */
static int place_mounts(struct keeper *k, const struct bind *binds, size_t count)
{
    uint32_t rows = json_get(&k->spec, json_get(&k->spec, 0, "oci"), "mounts");
    char root[PATH_MAX], target[PATH_MAX];
    if (!join(root, k->plan.stage, "bundle/rootfs"))
        return trouble(k, "START_FAILED", "the stage's name is too long");
    for (uint32_t row = json_first(&k->spec, rows); row; row = json_next(&k->spec, rows, row)) {
        char *source = json_member(&k->spec, row, "source");
        char *shown = json_member(&k->spec, row, "destination");
        const char *behind = source ? origin(source, binds, count) : "/";
        bool good = shown && join(target, root, shown) && place(behind, target);
        if (!good)
            (void)trouble(k, "START_FAILED", "place %s: %s", shown ? shown : "?", strerror(errno));
        free(source);
        free(shown);
        if (!good)
            return -1;
    }
    return 0;
}

static int mount_all(struct keeper *k)
{
    size_t count = 0;
    struct bind *binds = read_binds(k, &count);
    if (binds == NULL)
        return trouble(k, "START_FAILED", "spec.json: binds cannot be read");
    int status = place_mounts(k, binds, count);
    for (size_t i = 0; i < count && status == 0; i++)
        status = mount_bind(k, &binds[i]);
    free_binds(binds, count);
    return status;
}

int isolate(struct keeper *k)
{
    if (k->plan.private && leave_namespace(k) != 0)
        return -1;
    if (!make_folders(k->plan.stage))
        return trouble(k, "START_FAILED", "make %s: %s", k->plan.stage, strerror(errno));
    if (write_rows(k, "links", true) != 0 || write_rows(k, "files", false) != 0 || mount_all(k))
        return -1;
    int64_t owner = -1;
    (void)json_integer(&k->spec, json_get(&k->spec, 0, "owner"), &owner);
    if (owner < 0)
        return 0;
    if (fchownat(k->folder, "work", (uid_t)owner, (gid_t)owner, AT_SYMLINK_NOFOLLOW) != 0)
        return trouble(k, "START_FAILED", "give work to its user: %s", strerror(errno));
    return 0;
}
