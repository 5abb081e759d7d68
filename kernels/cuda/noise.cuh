// What randomness does to a layer in training: the drawn slopes of RReLU, and dropout's scale.

// The parameters of f for V elements: the layer's own, or in training the drawn slopes of RReLU.
struct Parameters { Real p[2]; };

__device__ __forceinline__ Parameters parameters(const Real* p)
{
    return Parameters{{p[0], p[1]}};
}

__device__ __forceinline__ Parameters drawn(Parameters bounds, unsigned bits)
{
    const Real slope = bounds.p[0] + uniform(bits) * (bounds.p[1] - bounds.p[0]);
    return Parameters{{slope, slope}};
}

// 1 / (1 - dropout probability), from the threshold on 32 bits.
__device__ __forceinline__ Real keep_scale(unsigned threshold)
{
    return Real(1) / (Real(1) - Real(threshold) * Real(2.3283064365386963e-10));    // 2^-32
}
