// One launch: what the kernel is called with, and the order in which things run.
#pragma once
#include <stdint.h>
#include <string>
#include <utility>
#include <vector>

#include "cuda_types.h"

namespace simt {

// 0: ascending; 1: descending; from 2 on: shuffled, each number another way.
class Order {
  public:
    explicit Order(int number) : number(number), random(12345u + number) {}

    std::vector<int64_t> permutation(int64_t count) {
        std::vector<int64_t> order(count);
        for (int64_t i = 0; i < count; ++i) order[i] = number == 1 ? count - 1 - i : i;
        if (number > 1)
            for (int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[next() % (i + 1)]);
        return order;
    }

  private:
    uint32_t next() {
        random = random * 1664525u + 1013904223u;  // Knuth's linear congruential generator
        return random >> 8;                        // whose low bits are poor
    }

    int number;
    uint32_t random;
};

inline std::string text(const uint3& index) {
    return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
           std::to_string(index.z) + ")";
}

struct Launch {
    void (*kernel)(void** arguments);
    void** arguments;
    dim3 grid, block;
    size_t dynamic_shared_size, dynamic_shared_limit;
    Order order;

    int threads_per_block() const { return block.x * block.y * block.z; }
    int64_t blocks() const { return int64_t(grid.x) * grid.y * grid.z; }

    uint3 block_index(int64_t number) const {
        const int64_t row = number / grid.x;
        return {unsigned(number % grid.x), unsigned(row % grid.y), unsigned(row / grid.y)};
    }

    uint3 thread_index(int number) const {
        const unsigned row = number / block.x;
        return {number % block.x, row % block.y, row / block.y};
    }
};

}  // namespace simt
