// Losses l(u, y) and their derivatives dl = dl/du, where u is ŷ, log ŷ (Log) or logit ŷ (Logit).
// gpumlp/functions/loss.py is the same table for NumPy and says which form serves which output.

// log_rest: (log((1 + s) / (1 - s)) - 2 s) / s³ of x = s² up to 1/9, interpolated at Chebyshev's nodes.
template<class T> struct Limits;
template<> struct Limits<float> {
    static constexpr float tiny = 1.17549435e-38f, eps = 1.1920929e-7f;
    static __device__ __forceinline__ float log_rest(float x)
    {
        return 0.6666666732052776f + x * (0.39999706331804635f + x * (0.2859235800110294f
            + x * (0.2170657568608436f + x * 0.2322432981656043f)));
    }
};
template<> struct Limits<double> {
    static constexpr double tiny = 2.2250738585072014e-308, eps = 2.220446049250313e-16;
    static __device__ __forceinline__ double log_rest(double x)
    {
        return 0.6666666666666666 + x * (0.40000000000014585 + x * (0.28571428567108753
            + x * (0.22222222717428236 + x * (0.18181789436114057 + x * (0.15385570065486454
            + x * (0.13314144200997735 + x * (0.12001072891953125 + x * (0.0880073806534387
            + x * 0.1616404650447245))))))));
    }
};

constexpr Real TINY = Limits<Real>::tiny;               // the smallest normal number
constexpr Real EPS = Limits<Real>::eps;                 // 1 + EPS is the number after 1

// NaN stays NaN (fmin and fmax would lose it), so that a broken network is noticed in its loss.
__device__ __forceinline__ Real at_least(Real u, Real low)  { return u < low ? low : u; }
__device__ __forceinline__ Real at_most(Real u, Real high)  { return u > high ? high : u; }

__device__ __forceinline__ Real positive(Real u)      { return at_least(u, TINY); }
__device__ __forceinline__ Real open_unit(Real u)     { return at_most(at_least(u, TINY), Real(1) - EPS); }
__device__ __forceinline__ Real power(Real u, Real p)  { return p == Real(2) ? u * u : pow(u, p); }
__device__ __forceinline__ Real x_log_x(Real y)       { return y * log(positive(y)); }   // 0 at 0

// log(1 + e) of e between 0 and 1, with neither branches nor calls.
__device__ __forceinline__ Real log1p_of_unit(Real e)
{
    const Real s = e / (Real(2) + e), square = s * s;
    return Real(2) * s + s * square * Limits<Real>::log_rest(square);
}

// Both by the same exp, where both are needed.
__device__ __forceinline__ Real log1p_exp(Real u)     { return fmax(u, Real(0)) + log1p_of_unit(exp(-fabs(u))); }
__device__ __forceinline__ Real logistic(Real u)
{
    const Real e = exp(-fabs(u));
    return (u < Real(0) ? e : Real(1)) / (Real(1) + e);
}

struct SquaredError {
    static __device__ Real l (Real u, Real y, const Real*)   { return Real(0.5) * (u - y) * (u - y); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return u - y; }
};

struct AbsoluteError {
    static __device__ Real l (Real u, Real y, const Real*)   { return fabs(u - y); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return Real(u > y) - Real(u < y); }
};

struct Huber {
    static __device__ Real l (Real u, Real y, const Real* p)
    {
        const Real r = fabs(u - y);
        return r <= p[0] ? Real(0.5) * r * r : p[0] * (r - Real(0.5) * p[0]);
    }
    static __device__ Real dl(Real u, Real y, const Real* p) { return at_most(at_least(u - y, -p[0]), p[0]); }
};

struct LogCosh {
    static __device__ Real l (Real u, Real y, const Real*)
    {
        const Real r = fabs(u - y);
        return r + log1p_of_unit(exp(Real(-2) * r)) - Real(0.69314718055994531);
    }
    static __device__ Real dl(Real u, Real y, const Real*)   { return tanh(u - y); }
};

struct Quantile {
    static __device__ Real l (Real u, Real y, const Real* p) { return fmax(p[0] * (y - u), (p[0] - Real(1)) * (y - u)); }
    static __device__ Real dl(Real u, Real y, const Real* p) { return y > u ? -p[0] : y < u ? Real(1) - p[0] : Real(0); }
};

struct Poisson {
    static __device__ Real l (Real u, Real y, const Real*)   { return u - y * log(positive(u)); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return Real(1) - y / positive(u); }
};

struct PoissonLog {
    static __device__ Real l (Real u, Real y, const Real*)   { return exp(u) - y * u; }
    static __device__ Real dl(Real u, Real y, const Real*)   { return exp(u) - y; }
};

struct CrossEntropy {
    static __device__ Real l (Real u, Real y, const Real*)   { return -y * log(positive(u)); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return -y / positive(u); }
};

struct CrossEntropyLog {
    static __device__ Real l (Real u, Real y, const Real*)   { return -y * u; }
    static __device__ Real dl(Real, Real y, const Real*)     { return -y; }
};

struct BinaryCrossEntropy {
    static __device__ Real l (Real u, Real y, const Real*)
    {
        const Real v = open_unit(u);
        return -(y * log(v) + (Real(1) - y) * log1p(-v));
    }
    static __device__ Real dl(Real u, Real y, const Real*)
    {
        const Real v = open_unit(u);
        return (v - y) / (v * (Real(1) - v));
    }
};

struct BinaryCrossEntropyLogit {
    static __device__ Real l (Real u, Real y, const Real*)   { return log1p_exp(u) - y * u; }
    static __device__ Real dl(Real u, Real y, const Real*)   { return logistic(u) - y; }
};

struct FocalLog {
    static __device__ Real l (Real u, Real y, const Real* p) { return -y * power(-expm1(u), p[0]) * u; }
    static __device__ Real dl(Real u, Real y, const Real* p)
    {
        const Real rest = -expm1(u);
        const Real slope = rest > Real(0) ? p[0] * exp(u) * u / rest : Real(0);
        return y * power(rest, p[0]) * (slope - Real(1));
    }
};

// (1 - p)^gamma is e^(-gamma log1p_exp(u)), p^gamma the same of -u.
struct FocalLogit {
    static __device__ Real l (Real u, Real y, const Real* p)
    {
        const Real one = log1p_exp(-u), zero = log1p_exp(u);
        return y * exp(-p[0] * zero) * one + (Real(1) - y) * exp(-p[0] * one) * zero;
    }
    static __device__ Real dl(Real u, Real y, const Real* p)
    {
        const Real prob = logistic(u), rest = logistic(-u), one = log1p_exp(-u), zero = log1p_exp(u);
        return (Real(1) - y) * exp(-p[0] * one) * (p[0] * rest * zero + prob)
             - y * exp(-p[0] * zero) * (p[0] * prob * one + rest);
    }
};

struct Hinge {
    static __device__ Real l (Real u, Real y, const Real*)   { return at_least(Real(1) - y * u, Real(0)); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return y * u < Real(1) ? -y : Real(0); }
};

struct SquaredHinge {
    static __device__ Real l (Real u, Real y, const Real* p) { return Hinge::l(u, y, p) * Hinge::l(u, y, p); }
    static __device__ Real dl(Real u, Real y, const Real* p) { return Real(-2) * y * Hinge::l(u, y, p); }
};

struct Exponential {
    static __device__ Real l (Real u, Real y, const Real*)   { return exp(-y * u); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return -y * exp(-y * u); }
};

struct KlDivergence {
    static __device__ Real l (Real u, Real y, const Real*)   { return x_log_x(y) - y * log(positive(u)); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return -y / positive(u); }
};

struct KlDivergenceLog {
    static __device__ Real l (Real u, Real y, const Real*)   { return x_log_x(y) - y * u; }
    static __device__ Real dl(Real, Real y, const Real*)     { return -y; }
};

// As scikit-learn reports them: gpumlp/functions/sklearn_losses.py.
struct MeanSquaredError {
    static __device__ Real l (Real u, Real y, const Real* p) { return p[0] * (u - y) * (u - y); }
    static __device__ Real dl(Real u, Real y, const Real*)   { return u - y; }
};

struct PoissonDevianceLog {
    static __device__ Real l (Real u, Real y, const Real*)   { return exp(u) - y * u + x_log_x(y) - y; }
    static __device__ Real dl(Real u, Real y, const Real*)   { return exp(u) - y; }
};

struct LogLoss {
    static __device__ Real l (Real u, Real y, const Real* p) { return -y * at_least(u, p[1]); }
    static __device__ Real dl(Real, Real y, const Real*)     { return -y; }
};

struct BinaryLogLoss {
    static __device__ Real l (Real u, Real y, const Real*)
    {
        const Real v = at_most(at_least(logistic(u), EPS), Real(1) - EPS);
        return -(y * log(v) + (Real(1) - y) * log(Real(1) - v));
    }
    static __device__ Real dl(Real u, Real y, const Real*)   { return logistic(u) - y; }
};
