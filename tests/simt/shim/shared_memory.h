// The shared memory of one block: each __shared__ variable is a heap block of its own, so that the
// sanitizers see its bounds, filled with 0xff (NaN as float, -1 as integer), so that a value
// that was never written spoils the result.
#pragma once
#include <stdlib.h>
#include <vector>

#include "sanitizers.h"

namespace simt {

class SharedMemory {
  public:
    static constexpr size_t usual_limit = 48 << 10;    // bytes a block, without a kernel attribute
    static constexpr size_t highest_limit = 227 << 10;  // with it, of the largest GPUs

    // dynamic_limit: the kernel's attribute.
    explicit SharedMemory(size_t dynamic_size, size_t dynamic_limit)
        : limit(dynamic_limit > usual_limit ? highest_limit : usual_limit) {
        if (dynamic_size) dynamic = allocate(dynamic_size, 16);
    }
    ~SharedMemory() {
        for (const Variable& variable : variables) free(variable.allocation);
    }
    SharedMemory(const SharedMemory&) = delete;

    char* find(const void* site) const {
        for (const Variable& variable : variables)
            if (variable.site == site) return variable.address;
        return nullptr;
    }

    char* declare(const void* site, size_t size, size_t alignment) {
        char* address = allocate(size, alignment);
        variables.back().site = site;
        return address;
    }

    size_t used() const { return total; }

    const size_t limit;
    char* dynamic = nullptr;

  private:
    struct Variable {
        const void* site;
        char* address;
        void* allocation;
    };

    // The compiler promises no more than the declared alignment, so an array of 4- or 8-byte
    // elements starts 8 bytes beside a multiple of 16: 128-bit accesses to it are misaligned, and
    // UBSan says so.
    char* allocate(size_t size, size_t alignment) {
        const size_t offset = alignment < 16 ? 8 : 0;
        const size_t at_least_16 = alignment < 16 ? 16 : alignment;
        void* allocation = nullptr;
        if (posix_memalign(&allocation, at_least_16, offset + size)) abort();
        char* address = static_cast<char*>(allocation) + offset;
        // Not memset: the sanitizers would take it for an access by the calling CUDA thread.
        for (volatile char *byte = address; byte < address + size; ++byte) *byte = char(0xff);
#if defined(SIMT_ADDRESS)
        if (offset) __asan_poison_memory_region(allocation, offset);
#endif
        variables.push_back({nullptr, address, allocation});
        total += size;
        return address;
    }

    std::vector<Variable> variables;
    size_t total = 0;
};

}  // namespace simt
