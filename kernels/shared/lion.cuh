// u = sign(beta1 m + (1 - beta1) g), theta <- theta - lr u, m <- beta2 m + (1 - beta2) g.
struct Lion : UpdateRule {
    enum { AVERAGE };

    __device__ __forceinline__ void move(Real& theta, Real g, Real* state, Real lr) const
    {
        Real& m = state[AVERAGE];
        const Real u = h[BETA1] * m + h[REST1] * g;
        theta -= lr * (Real(u > Real(0)) - Real(u < Real(0)));
        m = h[BETA2] * m + h[REST2] * g;
    }
};
