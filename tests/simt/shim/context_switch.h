// Switching the processor from one stack to another: the only code here that depends on the CPU.
//
// A suspended stack holds the registers that a function must preserve, and `switch_stack` returns
// to whoever suspended it. A new stack is laid out as if its entry function had been about to be
// returned to.
#pragma once
#include <stdint.h>
#include <string.h>

extern "C" void simt_switch_stack(void** save, void* resume) __asm__("simt_switch_stack");

#if defined(__x86_64__)
#include <xmmintrin.h>

__asm__(R"(
    .text
    .type simt_switch_stack, @function
simt_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq  %rsp, (%rdi)
    movq  %rsi, %rsp
    popq  %r15
    popq  %r14
    popq  %r13
    popq  %r12
    popq  %rbx
    popq  %rbp
    ret
    .size simt_switch_stack, .-simt_switch_stack
)");

namespace simt {

inline void* new_stack_pointer(char* stack_top, void (*entry)()) {
    const int saved_registers = 6;
    void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack_top) & ~uintptr_t(15));
    *--top = nullptr;  // where entry's own caller would be: keeps the stack aligned as in a call
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < saved_registers; ++i) *--top = nullptr;
    return top;
}

// Flushes denormal results and operands to zero while it lives. On the GPU -ftz=true does this to
// float32 only; the processor's flag covers float64 too.
class FlushDenormals {
  public:
    explicit FlushDenormals(bool enable) : saved(_mm_getcsr()) {
        const unsigned flush_results = 0x8000, flush_operands = 0x0040;
        if (enable) _mm_setcsr(saved | flush_results | flush_operands);
    }
    ~FlushDenormals() { _mm_setcsr(saved); }

  private:
    unsigned saved;
};

}  // namespace simt

#elif defined(__aarch64__)

__asm__(R"(
    .text
    .type simt_switch_stack, %function
simt_switch_stack:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8,  d9,  [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8,  d9,  [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size simt_switch_stack, .-simt_switch_stack
)");

namespace simt {

inline void* new_stack_pointer(char* stack_top, void (*entry)()) {
    const int frame = 160, link_register = 88;
    char* top = reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(stack_top) & ~uintptr_t(15));
    char* base = top - frame;
    memset(base, 0, frame);
    memcpy(base + link_register, &entry, sizeof entry);
    return base;
}

class FlushDenormals {
  public:
    explicit FlushDenormals(bool enable) {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
        const uint64_t flush_to_zero = uint64_t(1) << 24;
        if (enable) __asm__ volatile("msr fpcr, %0" : : "r"(saved | flush_to_zero));
    }
    ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(saved)); }

  private:
    uint64_t saved;
};

}  // namespace simt

#else
#error "the SIMT shim knows x86-64 and aarch64"
#endif
