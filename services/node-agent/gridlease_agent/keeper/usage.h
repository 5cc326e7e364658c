/* What a task has written, counted in slices so that nothing else waits for it. */
#ifndef KEEPER_USAGE_H
#define KEEPER_USAGE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct usage {
    bool counting;
    bool beyond;           /* a path too long to be opened: what lies there cannot be counted */
    int root, folder;      /* descriptors: of the whole, and of the folder being read or -1 */
    char path[PATH_MAX];   /* of `folder`, relative to the root */
    char *waiting;         /* a stack of paths yet to be read, each ended by a NUL */
    size_t waiting_length, waiting_size;
    _Alignas(uint64_t) char entries[8192];
    size_t entry, entries_length;
    uint64_t *linked;      /* inodes with several names that were counted: an open hash table */
    size_t linked_count, linked_size;
    int64_t bytes, files;
};

enum usage_step { USAGE_MORE, USAGE_DONE, USAGE_FAILED };

bool usage_begin(struct usage *usage, int parent, const char *name);
/* Count until `until_ns`, or until there are more files than `most_files`. */
enum usage_step usage_count(struct usage *usage, int64_t until_ns, int64_t most_files);
void usage_end(struct usage *usage);

#endif
