/* What the kernel tells: clocks, this boot, and which process a number means. */
#ifndef KEEPER_FACTS_H
#define KEEPER_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MS_NS INT64_C(1000000)
#define SECOND_NS INT64_C(1000000000)

int64_t boottime_ns(void);
int64_t raw_ns(void);
int64_t wall_ns(void);
/* For waiting only: it stands still while the host sleeps. */
int64_t monotonic_ns(void);
/* a - b and a * b, at the edge of the range where they do not fit in it. */
int64_t minus(int64_t a, int64_t b);
int64_t times(int64_t a, int64_t b);

/* This boot's id, "" if it cannot be read. */
const char *boot_id(void);
/* When a process began, in clock ticks since boot: with its pid, its identity. 0 if gone. */
int64_t start_ticks(pid_t pid);
/* The process's state as ps shows it (R, S, D, Z ...), X if there is none. */
char state_letter(pid_t pid);
/* The same process as the one that began then, and no zombie. */
bool lives(pid_t pid, int64_t ticks);
/* Up to `most` children of a process; how many. */
size_t children_of(pid_t pid, pid_t *found, size_t most);

/* A small file's text in `text`, "" where there is none; its length. */
size_t read_small(int folder, const char *path, char *text, size_t size);

#endif
