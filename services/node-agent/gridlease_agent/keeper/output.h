/* The task's output: a pipe on one side, a capped file on the other. */
#ifndef KEEPER_OUTPUT_H
#define KEEPER_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

struct output {
    int read_fd, write_fd, file;
    int64_t left, limit;
    bool truncated;
};

bool output_open(struct output *output, int folder, int64_t limit);
/* Take what is there, at most `chunks` reads; false at the end of the stream. */
bool output_drain(struct output *output, int chunks);
/* Count anew what the file holds: for a guard that takes over. */
void output_resume(struct output *output);

#endif
