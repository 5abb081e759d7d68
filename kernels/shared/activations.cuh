// Activation functions, n = f(z), and their derivatives f'(z), as df(z, n, p).
// gpumlp/functions/activation.py is the same table for NumPy; to add one, add a struct here and a line there.
// p points to the layer's parameters.  A struct whose df ignores z is never given one.

// NaN stays NaN (fmin and fmax would lose it), so that a broken network is noticed in its loss.
__device__ __forceinline__ Real clip(Real z, Real low, Real high)
{
    return z < low ? low : z > high ? high : z;
}

struct Identity {
    static __device__ Real f (Real z, const Real*)                  { return z; }
    static __device__ Real df(Real, Real, const Real*)              { return Real(1); }
};

struct Sigmoid {
    static __device__ Real f (Real z, const Real*)                  { return Real(1) / (Real(1) + exp(-z)); }
    static __device__ Real df(Real, Real n, const Real*)            { return n * (Real(1) - n); }
};

struct HardSigmoid {
    static __device__ Real f (Real z, const Real*)
    {
        return clip(z + Real(3), Real(0), Real(6)) / Real(6);
    }
    static __device__ Real df(Real, Real n, const Real*)
    {
        return n > Real(0) && n < Real(1) ? Real(1) / Real(6) : Real(0);
    }
};

struct Tanh {
    static __device__ Real f (Real z, const Real*)                  { return tanh(z); }
    static __device__ Real df(Real, Real n, const Real*)            { return Real(1) - n * n; }
};

struct HardTanh {
    static __device__ Real f (Real z, const Real*)                  { return clip(z, Real(-1), Real(1)); }
    static __device__ Real df(Real, Real n, const Real*)            { return fabs(n) < Real(1) ? Real(1) : Real(0); }
};

struct Softsign {
    static __device__ Real f (Real z, const Real*)                  { return z / (Real(1) + fabs(z)); }
    static __device__ Real df(Real, Real n, const Real*)
    {
        const Real rest = Real(1) - fabs(n);
        return rest * rest;
    }
};

struct Softplus {
    static __device__ Real f (Real z, const Real*)                  { return fmax(z, Real(0)) + log1p(exp(-fabs(z))); }
    static __device__ Real df(Real, Real n, const Real*)            { return -expm1(-n); }
};

struct Relu {
    static __device__ Real f (Real z, const Real*)                  { return z <= Real(0) ? Real(0) : z; }
    static __device__ Real df(Real, Real n, const Real*)            { return n > Real(0) ? Real(1) : Real(0); }
};

struct Relu6 {
    static __device__ Real f (Real z, const Real*)                  { return clip(z, Real(0), Real(6)); }
    static __device__ Real df(Real, Real n, const Real*)
    {
        return n > Real(0) && n < Real(6) ? Real(1) : Real(0);
    }
};

struct LeakyRelu {
    static __device__ Real f (Real z, const Real* p)                { return z > Real(0) ? z : p[0] * z; }
    static __device__ Real df(Real, Real n, const Real* p)          { return n > Real(0) ? Real(1) : p[0]; }
};

struct Prelu {                                                      // p[0] is learned
    static __device__ Real f (Real z, const Real* p)                { return z > Real(0) ? z : p[0] * z; }
    static __device__ Real df(Real z, Real, const Real* p)          { return z > Real(0) ? Real(1) : p[0]; }
    static __device__ Real dp(Real z)                               { return z > Real(0) ? Real(0) : z; }
};

struct Rrelu {                                                      // in training p[0] = p[1] = the drawn slope
    static __device__ Real slope(const Real* p)                     { return Real(0.5) * (p[0] + p[1]); }
    static __device__ Real f (Real z, const Real* p)                { return z > Real(0) ? z : slope(p) * z; }
    static __device__ Real df(Real, Real n, const Real* p)          { return n > Real(0) ? Real(1) : slope(p); }
};

struct Elu {
    static __device__ Real f (Real z, const Real* p)                { return z > Real(0) ? z : p[0] * expm1(z); }
    static __device__ Real df(Real, Real n, const Real* p)          { return n > Real(0) ? Real(1) : n + p[0]; }
};

struct Selu {
    static constexpr double scale = 1.0507009873554805, alpha = 1.6732632423543772;
    static __device__ Real f (Real z, const Real*)
    {
        return z > Real(0) ? Real(scale) * z : Real(scale * alpha) * expm1(z);
    }
    static __device__ Real df(Real, Real n, const Real*)
    {
        return n > Real(0) ? Real(scale) : n + Real(scale * alpha);
    }
};

struct Celu {
    static __device__ Real f (Real z, const Real* p)                { return z > Real(0) ? z : p[0] * expm1(z / p[0]); }
    static __device__ Real df(Real, Real n, const Real* p)          { return n > Real(0) ? Real(1) : Real(1) + n / p[0]; }
};

struct Gelu {                                                       // z Phi(z)
    static __device__ Real cdf(Real z)                              { return Real(0.5) * (Real(1) + erf(z * Real(0.70710678118654752))); }
    static __device__ Real f (Real z, const Real*)                  { return z * cdf(z); }
    static __device__ Real df(Real z, Real, const Real*)
    {
        return cdf(z) + z * Real(0.3989422804014327) * exp(Real(-0.5) * z * z);
    }
};

struct GeluTanh {
    static constexpr double scale = 0.7978845608028654, cubic = 0.044715;   // sqrt(2 / pi)
    static __device__ Real inner(Real z)                            { return Real(scale) * (z + Real(cubic) * z * z * z); }
    static __device__ Real f (Real z, const Real*)                  { return Real(0.5) * z * (Real(1) + tanh(inner(z))); }
    static __device__ Real df(Real z, Real, const Real*)
    {
        const Real t = tanh(inner(z));
        const Real slope = Real(scale) * (Real(1) + Real(3 * cubic) * z * z);
        return Real(0.5) * (Real(1) + t) + Real(0.5) * z * (Real(1) - t * t) * slope;
    }
};

struct Silu {
    static __device__ Real f (Real z, const Real* p)                { return z * Sigmoid::f(z, p); }
    static __device__ Real df(Real z, Real, const Real* p)
    {
        const Real s = Sigmoid::f(z, p);
        return s * (Real(1) + z * (Real(1) - s));
    }
};

struct HardSwish {
    static __device__ Real f (Real z, const Real* p)                { return z * HardSigmoid::f(z, p); }
    static __device__ Real df(Real z, Real, const Real*)
    {
        return z <= Real(-3) ? Real(0) : z < Real(3) ? z / Real(3) + Real(0.5) : Real(1);
    }
};

struct Mish {
    static __device__ Real f (Real z, const Real* p)                { return z * tanh(Softplus::f(z, p)); }
    static __device__ Real df(Real z, Real, const Real* p)
    {
        const Real t = tanh(Softplus::f(z, p));
        return t + z * (Real(1) - t * t) * Sigmoid::f(z, p);
    }
};

struct Exp {
    static __device__ Real f (Real z, const Real*)                  { return exp(z); }
    static __device__ Real df(Real, Real n, const Real*)            { return n; }
};

// sin(z + quarters pi/2).  CUDA's own sin keeps a path for huge arguments that needs local memory (and
// float64 in float32 code), so the range is reduced here: pi/2 in three parts (Cody and Waite 1980),
// then the polynomials of fdlibm and Cephes on [-pi/4, pi/4].  Good to a few ulp for |z| < 1e5.
__device__ __forceinline__ float sine(float z, int quarters)
{
    const float k = rint(z * 0.636619772f);
    float r = fma(-k, 1.57079637f, z);
    r = fma(-k, -4.37113883e-8f, r);
    r = fma(-k, -1.71512489e-15f, r);
    const float r2 = r * r;
    const int quadrant = (int(k) + quarters) & 3;
    const float sin_r = r + r * r2 * (-1.6666654611e-1f + r2 * (8.3321608736e-3f - r2 * 1.9515295891e-4f));
    const float cos_r = 1.0f - 0.5f * r2
        + r2 * r2 * (4.166664568298827e-2f + r2 * (-1.388731625493765e-3f + r2 * 2.443315711809948e-5f));
    const float value = quadrant & 1 ? cos_r : sin_r;
    return quadrant & 2 ? -value : value;
}

__device__ __forceinline__ double sine(double z, int quarters)
{
    const double k = rint(z * 0.63661977236758134308);
    double r = fma(-k, 1.57079632679489655800, z);
    r = fma(-k, 6.12323399573676603587e-17, r);
    r = fma(-k, -1.49738490485916983e-33, r);
    const double r2 = r * r;
    const int quadrant = (int(k) + quarters) & 3;
    const double sin_r = r + r * r2 * (-1.66666666666666324348e-1 + r2 * (8.33333333332248946124e-3
        + r2 * (-1.98412698298579493134e-4 + r2 * (2.75573137070700676789e-6
        + r2 * (-2.50507602534068634195e-8 + r2 * 1.58969099521155010221e-10)))));
    const double cos_r = 1.0 - 0.5 * r2 + r2 * r2 * (4.16666666666666019037e-2
        + r2 * (-1.38888888888741095749e-3 + r2 * (2.48015872894767294178e-5
        + r2 * (-2.75573143513906633035e-7 + r2 * (2.08757232129817482790e-9
        - r2 * 1.13596475577881948265e-11)))));
    const double value = quadrant & 1 ? cos_r : sin_r;
    return quadrant & 2 ? -value : value;
}

struct Sine {
    static __device__ Real f (Real z, const Real*)                  { return sine(z, 0); }
    static __device__ Real df(Real z, Real, const Real*)            { return sine(z, 1); }
};
