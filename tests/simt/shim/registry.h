// The table of a program's kernels that Python reads: names, parameter types, how to call them.
//
// translate.py appends the table, one SIMT_KERNEL a kernel. The layout of these structs is known to
// module.py.
#pragma once
#include "runtime_api.h"

namespace simt {

struct Parameter {
    int is_pointer;
    int kind;  // as in NumPy: 'f', 'i', 'u', 'b'; 'V' for structs and void
    int size;  // in bytes, of the value or of what the pointer points to
};

struct Kernel {
    const char* name;
    const char* parameter_names;  // separated by commas
    int parameter_count;
    int largest_block;  // __launch_bounds__, or 1024
    const Parameter* parameters;
    void (*call)(void** arguments);  // one address an argument
};

template <class T> struct Scalar { static constexpr int kind = 'V', size = sizeof(T); };
template <> struct Scalar<void> { static constexpr int kind = 'V', size = 0; };
template <class T> struct Scalar<const T> : Scalar<T> {};
template <class T> struct Scalar<volatile T> : Scalar<T> {};
template <class T> struct Scalar<const volatile T> : Scalar<T> {};

#define SIMT_SCALAR(type, letter) \
    template <> struct Scalar<type> { static constexpr int kind = letter, size = sizeof(type); };
SIMT_SCALAR(float, 'f')
SIMT_SCALAR(double, 'f')
SIMT_SCALAR(bool, 'b')
SIMT_SCALAR(char, 'i')
SIMT_SCALAR(signed char, 'i')
SIMT_SCALAR(short, 'i')
SIMT_SCALAR(int, 'i')
SIMT_SCALAR(long, 'i')
SIMT_SCALAR(long long, 'i')
SIMT_SCALAR(unsigned char, 'u')
SIMT_SCALAR(unsigned short, 'u')
SIMT_SCALAR(unsigned, 'u')
SIMT_SCALAR(unsigned long, 'u')
SIMT_SCALAR(unsigned long long, 'u')
#undef SIMT_SCALAR

template <class T> struct Describe {
    static constexpr Parameter parameter = {0, Scalar<T>::kind, Scalar<T>::size};
};
template <class T> struct Describe<T*> {
    static constexpr Parameter parameter = {1, Scalar<T>::kind, Scalar<T>::size};
};

// A braced list is evaluated from left to right, a function's arguments are not.
template <class... T> struct Call {
    Call(void (*kernel)(T...), T... arguments) { kernel(arguments...); }
};

template <class... T> struct Signature {
    static constexpr int count = sizeof...(T);
    static constexpr Parameter parameters[] = {Describe<T>::parameter..., {}};

    template <void (*kernel)(T...)> static void call(void** arguments) {
        Call<T...>{kernel, *static_cast<T*>(*arguments++)...};
    }
};
template <class... T> Signature<T...> signature_of(void (*)(T...));

}  // namespace simt

#define SIMT_KERNEL(name, parameter_names, largest_block)                                   \
    simt::Kernel {                                                                          \
        #name, parameter_names, decltype(simt::signature_of(name))::count, (largest_block), \
            decltype(simt::signature_of(name))::parameters,                                 \
            decltype(simt::signature_of(name))::call<name>                                  \
    }
