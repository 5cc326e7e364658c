/* The sandbox's cgroup in whichever hierarchies there are; all of it may be absent. */
#ifndef KEEPER_CGROUP_H
#define KEEPER_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CGROUPS "/sys/fs/cgroup"

struct cgroup {
    const char *root; /* CGROUPS, but for a trial */
    char *name;       /* below each hierarchy's root; "" = none */
    bool v2;
};

struct cgroup cgroup_at(const char *root, char *name);
/* Every process at once: none can fork its way out of a frozen or killed cgroup. */
void cgroup_kill(const struct cgroup *cgroup);
/* Freeze and wait until all of it stands, at most 5 s; or thaw. */
bool cgroup_freeze(const struct cgroup *cgroup);
bool cgroup_thaw(const struct cgroup *cgroup);
/* How many processes the kernel killed for memory here, children included. */
int64_t cgroup_oom_kills(const struct cgroup *cgroup);
int64_t cgroup_cpu_ns(const struct cgroup *cgroup);
int64_t cgroup_max_memory_bytes(const struct cgroup *cgroup);
/* Remove the folders; true once none is left. */
bool cgroup_remove(const struct cgroup *cgroup);

#endif
