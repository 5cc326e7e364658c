/* A stand-in for NVIDIA's management library (emulated): two GPUs, or as many as
 * MOCK_NVML_GPUS says. nvmlDeviceGetTotalEccErrors is left out: an old driver lacks functions. */
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

static unsigned int count(void) {
    const char *said = getenv("MOCK_NVML_GPUS");
    return said ? (unsigned int)atoi(said) : 2;
}
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
    snprintf(out, size, "GPU-mock-%lu", (unsigned long)device - 1);
    return 0;
}
int nvmlDeviceGetName(void *device, char *out, unsigned int size) {
    (void)device;
    snprintf(out, size, "NVIDIA H100 80GB HBM3");
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
    out->gpu = 37; out->memory = 5;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned int *out) { (void)device; *out = 123456; return 0; }
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
    (void)uuid;
    *out = (void *)1ul;
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, void *infos) {
    const char *said = getenv("MOCK_NVML_PROCESSES");
    (void)device; (void)infos;
    *count = said ? (unsigned int)atoi(said) : 0;
    return *count ? 7 : 0;
}
