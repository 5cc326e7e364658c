/* A stand-in for NVIDIA's driver library (emulated): the memory of the one visible device is the
 * file MOCK_CUDA_MEMORY, in which % is the last digit of the device's id. MOCK_CUDA_FAULT=stuck: a page of it takes no writes; =hidden: half of it
 * cannot be had. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
static uint8_t *memory;
static size_t size, taken;

static int faulty(const char *how) {
    const char *fault = said("MOCK_CUDA_FAULT");
    return fault && !strcmp(fault, how);
}
int cuInit(unsigned flags) {
    (void)flags;
    const char *pattern = said("MOCK_CUDA_MEMORY"), *id = getenv("CUDA_VISIBLE_DEVICES");
    char path[4200];
    snprintf(path, sizeof path, "%s", pattern ? pattern : "");
    char *mark = strchr(path, '%');
    if (mark && id && *id) *mark = id[strlen(id) - 1];
    int fd = open(path, O_RDWR);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    if (end <= 0) return 100;
    size = (size_t)end;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? 2 : 0;
}
int cuDeviceGetCount(int *out) { *out = getenv("CUDA_VISIBLE_DEVICES") ? 1 : 8; return 0; }
int cuDeviceGet(int *out, int ordinal) { *out = ordinal; return 0; }
int cuDeviceGetUuid_v2(uint8_t *out, int device) {
    (void)device;
    memset(out, 0xab, 16);
    return 0;
}
int cuCtxCreate_v2(void **out, unsigned flags, int device) {
    (void)flags; (void)device;
    *out = &memory;
    return 0;
}
int cuCtxDestroy_v2(void *context) { (void)context; return 0; }
int cuCtxSynchronize(void) { return 0; }
static size_t usable(void) { return faulty("hidden") ? size / 2 : size; }
int cuMemGetInfo_v2(size_t *free_, size_t *total) {
    *free_ = usable() - taken;
    *total = faulty("hidden") ? (size_t)8 << 30 : size;
    return 0;
}
int cuMemAlloc_v2(uint64_t *out, size_t wanted) {
    if (taken + wanted > usable()) return 2;
    *out = (uint64_t)(uintptr_t)memory + taken;
    taken += wanted;
    return 0;
}
int cuMemFree_v2(uint64_t address) { (void)address; return 0; }
int cuMemsetD32_v2(uint64_t address, unsigned word, size_t count) {
    uint32_t *at = (uint32_t *)(uintptr_t)address;
    const int stuck = faulty("stuck"); /* once: it may be a file */
    for (size_t k = 0; k < count; k++) {
        size_t place = (size_t)((uint8_t *)(at + k) - memory);
        if (!(stuck && place < 4096)) at[k] = word;
    }
    return 0;
}
int cuMemcpyDtoH_v2(void *out, uint64_t address, size_t count) {
    memcpy(out, (void *)(uintptr_t)address, count);
    return 0;
}
int cuMemcpyHtoD_v2(uint64_t address, const void *from, size_t count) {
    memcpy((void *)(uintptr_t)address, from, count);
    return 0;
}
int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t count) {
    memmove((void *)(uintptr_t)to, (void *)(uintptr_t)from, count);
    return 0;
}
/* And for cuBLAS. MOCK_CUDA_FAULT=wrong: one product in the sum is left out. */
int cublasCreate_v2(void **out) { *out = &memory; return 0; }
int cublasSgemm_v2(void *handle, int ta, int tb, int m, int n, int k, const float *alpha,
                   const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                   int ldc) {
    (void)handle; (void)ta; (void)tb; (void)beta;
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            float sum = 0;
            for (int x = faulty("wrong"); x < k; x++) sum += a[x * lda + i] * b[j * ldb + x];
            c[j * ldc + i] = *alpha * sum;
        }
    return 0;
}
