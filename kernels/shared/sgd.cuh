// v <- mu v - lr g, theta <- theta + v (Nesterov: theta + mu v - lr g); without v: theta - lr g.
struct SGD : UpdateRule {
    enum { VELOCITY };

    __device__ __forceinline__ void move(Real& theta, Real g, Real* state, Real lr) const
    {
        const Real down = lr * g;
        const Real v = h[MOMENTUM] * state[VELOCITY] - down;                    // (14)(15)
        theta += h[NESTEROV] > Real(0) ? h[MOMENTUM] * v - down : v;
        state[VELOCITY] = v;
    }
};
