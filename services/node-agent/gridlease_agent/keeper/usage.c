#include "usage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "facts.h"

/* The kernel's record of one entry, as getdents64(2) writes it. */
struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

bool usage_begin(struct usage *u, int parent, const char *name)
{
    u->counting = true;
    u->beyond = false;
    u->folder = -1;
    u->waiting_length = u->entry = u->entries_length = u->linked_count = 0;
    u->bytes = u->files = 0;
    u->root = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    u->waiting_size = 256;
    u->waiting = calloc(1, u->waiting_size);
    u->waiting_length = 1; /* "": the root itself */
    u->linked = NULL;
    u->linked_size = 0;
    if (u->root >= 0 && u->waiting != NULL)
        return true;
    usage_end(u);
    return false;
}

void usage_end(struct usage *u)
{
    if (u->folder >= 0)
        close(u->folder);
    if (u->root >= 0)
        close(u->root);
    free(u->waiting);
    free(u->linked);
    u->waiting = NULL;
    u->linked = NULL;
    u->folder = u->root = -1;
    u->counting = false;
}

static bool push(struct usage *u, const char *name)
{
    size_t length = strlen(u->path) + strlen(name) + 2;
    if (length > PATH_MAX) {
        u->beyond = true;
        return true;
    }
    if (u->waiting_length + length > u->waiting_size) {
        char *more = realloc(u->waiting, (u->waiting_size + length) * 2);
        if (more == NULL)
            return false;
        u->waiting = more;
        u->waiting_size = (u->waiting_size + length) * 2;
    }
    char *at = u->waiting + u->waiting_length;
    at = stpcpy(at, u->path);
    if (u->path[0] != '\0')
        *at++ = '/';
    at = stpcpy(at, name) + 1;
    u->waiting_length = (size_t)(at - u->waiting);
    return true;
}

/* Open the next waiting folder; the task may put a link where one was: never follow it out. */
static void pop(struct usage *u)
{
    size_t from = u->waiting_length - 1;
    while (from > 0 && u->waiting[from - 1] != '\0')
        from--;
    memcpy(u->path, u->waiting + from, u->waiting_length - from);
    u->waiting_length = from;
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
    };
    const char *path = u->path[0] != '\0' ? u->path : ".";
    u->folder = (int)syscall(SYS_openat2, u->root, path, &how, sizeof how);
    if (u->folder < 0 && errno == ENOSYS) /* before Linux 5.6 */
        u->folder = openat(u->root, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    u->entry = u->entries_length = 0;
}

/* Whether an inode is new in the table; -1 where there is no memory for it. */
static int insert(uint64_t *table, size_t size, uint64_t inode)
{
    size_t at = (size_t)(inode * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (size - 1);
    while (table[at] != 0 && table[at] != inode)
        at = (at + 1) & (size - 1);
    int fresh = table[at] == 0;
    table[at] = inode;
    return fresh;
}

static int first_seen(struct usage *u, uint64_t inode)
{
    if (u->linked_count * 2 >= u->linked_size) {
        size_t size = u->linked_size ? u->linked_size * 2 : 256;
        uint64_t *table = calloc(size, sizeof *table);
        if (table == NULL)
            return -1;
        for (size_t i = 0; i < u->linked_size; i++)
            if (u->linked[i] != 0)
                insert(table, size, u->linked[i]);
        free(u->linked);
        u->linked = table;
        u->linked_size = size;
    }
    int fresh = insert(u->linked, u->linked_size, inode);
    u->linked_count += (size_t)fresh;
    return fresh;
}

static bool count(struct usage *u, const struct entry *entry)
{
    struct stat facts;
    if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
        return true;
    u->files++;
    if (fstatat(u->folder, entry->name, &facts, AT_SYMLINK_NOFOLLOW) != 0)
        return true; /* gone again */
    if (S_ISDIR(facts.st_mode)) {
        u->bytes += facts.st_blocks * 512;
        return push(u, entry->name);
    }
    int fresh = facts.st_nlink > 1 ? first_seen(u, facts.st_ino) : 1;
    u->bytes += fresh > 0 ? facts.st_blocks * 512 : 0;
    return fresh >= 0;
}

/* The next entry of the open folder, NULL at its end. */
static const struct entry *next_entry(struct usage *u)
{
    if (u->entry >= u->entries_length) {
        long got = syscall(SYS_getdents64, u->folder, u->entries, sizeof u->entries);
        u->entry = 0;
        u->entries_length = got > 0 ? (size_t)got : 0;
        if (got <= 0)
            return NULL;
    }
    const struct entry *entry = (const struct entry *)(const void *)(u->entries + u->entry);
    u->entry += entry->length;
    return entry;
}

enum usage_step usage_count(struct usage *u, int64_t until_ns, int64_t most_files)
{
    for (unsigned turn = 1;; turn++) {
        if (u->beyond || u->files > most_files)
            return USAGE_DONE;
        if (turn % 64 == 0 && monotonic_ns() >= until_ns)
            return USAGE_MORE;
        if (u->folder < 0) {
            if (u->waiting_length == 0)
                return USAGE_DONE;
            pop(u);
            continue;
        }
        const struct entry *entry = next_entry(u);
        if (entry == NULL) {
            close(u->folder);
            u->folder = -1;
        } else if (!count(u, entry)) {
            return USAGE_FAILED;
        }
    }
}
