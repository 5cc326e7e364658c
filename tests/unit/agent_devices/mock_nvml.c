/* A stand-in for NVIDIA's management library (emulated): two GPUs, or as many as
 * MOCK_NVML_GPUS says; MOCK_NVML_MIG=N puts the first in MIG mode, with N instances. nvmlDeviceGetTotalEccErrors is left out: an old driver lacks functions. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct {
    char legacy[16];
    unsigned int domain, bus, device, id, subsystem;
    char bus_id[32];
} pci_t;

/* A setting: of the environment, or the file of that name in mock/ beside this library. */
static const char *said(const char *name) {
    static char text[8][4200];
    static int turn;
    const char *given = getenv(name);
    Dl_info self;
    char path[4096];
    if (given) return given;
    if (!dladdr((void *)said, &self) || !self.dli_fname) return NULL;
    snprintf(path, sizeof path, "%.3000s", self.dli_fname);
    char *slash = strrchr(path, '/');
    if (!slash) return NULL;
    snprintf(slash, sizeof path - 3001, "/mock/%s", name);
    FILE *file = fopen(path, "r");
    if (!file) return NULL;
    char *into = text[turn = (turn + 1) % 8];
    into[fread(into, 1, 4096, file)] = 0;
    fclose(file);
    into[strcspn(into, "\n")] = 0;
    return into;
}
static unsigned int number(const char *name, unsigned int otherwise) {
    const char *text = said(name);
    return text ? (unsigned int)atoi(text) : otherwise;
}
static unsigned int count(void) { return number("MOCK_NVML_GPUS", 2); }
/* A handle is the GPU's number from 1; of an instance, 100 more than its own number. */
static int is_part(void *device) { return (unsigned long)device >= 100; }
int nvmlInit_v2(void) { return getenv("MOCK_NVML_NO_DRIVER") ? 9 : 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *out, unsigned int size) {
    snprintf(out, size, "550.54.15");
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned int *out) { *out = count(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **out) {
    if (index >= count()) return 2;
    *out = (void *)(unsigned long)(index + 1);
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *out, unsigned int size) {
    if (is_part(device)) snprintf(out, size, "MIG-mock-%lu", (unsigned long)device - 100);
    else snprintf(out, size, "GPU-mock-%lu", (unsigned long)device - 1);
    return 0;
}
int nvmlDeviceGetName(void *device, char *out, unsigned int size) {
    snprintf(out, size, "NVIDIA H100 80GB HBM3%s", is_part(device) ? " MIG 1g.10gb" : "");
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *out) {
    (void)device;
    out->total = 80ull << 30; out->used = 1ull << 30; out->free = out->total - out->used;
    return 0;
}
int nvmlDeviceGetMinorNumber(void *device, unsigned int *out) {
    *out = (unsigned int)(unsigned long)device - 1;
    return 0;
}
int nvmlDeviceGetPciInfo_v3(void *device, pci_t *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02lX:00.0", (unsigned long)device);
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *out) {
    (void)device;
    out->gpu = number("MOCK_NVML_BUSY", 37); out->memory = 5;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned int *out) {
    (void)device;
    *out = number("MOCK_NVML_POWER_MW", 123456);
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *out) {
    (void)device; *out = 987654321; return 0;
}
int nvmlDeviceGetTemperature(void *device, unsigned int sensor, unsigned int *out) {
    (void)device;
    if (sensor != 0) return 2;
    *out = 54;
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
    const char *dash = strrchr(uuid, '-');
    unsigned long last = dash ? strtoul(dash + 1, NULL, 10) : 0;
    *out = (void *)(last + (strncmp(uuid, "MIG-", 4) ? 1 : 100));
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, void *infos) {
    (void)device; (void)infos;
    *count = number("MOCK_NVML_PROCESSES", 0);
    return *count ? 7 : 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned int *now, unsigned int *pending) {
    const char *mig = said("MOCK_NVML_MIG");
    if (!mig) return 3; /* NVML_ERROR_NOT_SUPPORTED */
    *now = *pending = device == (void *)1ul;
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned int *count) {
    (void)device;
    *count = 7;
    return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned int index, void **out) {
    (void)device;
    if (index >= number("MOCK_NVML_MIG", 0)) return 6; /* NVML_ERROR_NOT_FOUND */
    *out = (void *)(unsigned long)(100 + index);
    return 0;
}
int nvmlDeviceGetGpuInstanceId(void *device, unsigned int *out) {
    *out = (unsigned int)(unsigned long)device - 100 + 7;
    return is_part(device) ? 0 : 2;
}
int nvmlDeviceGetComputeInstanceId(void *device, unsigned int *out) {
    *out = 0;
    return is_part(device) ? 0 : 2;
}
typedef struct { unsigned int counts[8]; unsigned long long memory_mb; } attributes_t;
int nvmlDeviceGetAttributes_v2(void *device, attributes_t *out) {
    memset(out, 0, sizeof *out);
    out->memory_mb = 9856;
    return is_part(device) ? 0 : 3;
}
