// m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g², theta <- theta - a m / (sqrt(v) + e),
// a = lr sqrt(1 - beta2^t) / (1 - beta1^t), e = eps sqrt(1 - beta2^t), or eps alone (scikit-learn's).
struct Adam : UpdateRule {
    enum { FIRST, SECOND };
    Real root, rest, e;

    // 1 - beta^t without cancellation, from log beta.
    __device__ __forceinline__ static Real bias_correction(Real log_beta, Real t)
    {
        return -expm1(t * log_beta);
    }
    __device__ __forceinline__ void begin(const Real* hyper, const Step& now, Real t)
    {
        UpdateRule::begin(hyper, now, t);
        root = sqrt(bias_correction(h[LOG_BETA2], t));
        rest = bias_correction(h[LOG_BETA1], t);
        e = h[EPSILON] * (h[EPSILON_CORRECTED] > Real(0) ? root : Real(1));
    }
    __device__ __forceinline__ void move(Real& theta, Real g, Real* state, Real lr) const
    {
        const Real m = h[BETA1] * state[FIRST] + h[REST1] * g;
        const Real v = h[BETA2] * state[SECOND] + h[REST2] * g * g;
        const Real a = lr * root / rest;
        theta -= a * m / (sqrt(v) + e);
        state[FIRST] = m;
        state[SECOND] = v;
    }
};
