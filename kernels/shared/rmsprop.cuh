// s <- rho s + (1 - rho) g², u <- mu u - lr g / (sqrt(s - c²) + eps), theta <- theta + u, with
// c <- rho c + (1 - rho) g where it is centred, else 0.
struct RMSprop : UpdateRule {
    enum { SQUARE, VELOCITY, CENTRE };

    __device__ __forceinline__ void move(Real& theta, Real g, Real* state, Real lr) const
    {
        const Real s = h[BETA2] * state[SQUARE] + h[REST2] * g * g;
        const Real c = used(CENTRE) ? h[BETA2] * state[CENTRE] + h[REST2] * g : Real(0);
        const Real variance = s - c * c;
        const Real root = sqrt(variance > Real(0) ? variance : Real(0)) + h[EPSILON];
        const Real u = h[MOMENTUM] * state[VELOCITY] - lr * g / root;
        theta += u;
        state[SQUARE] = s;
        state[VELOCITY] = u;
        state[CENTRE] = c;
    }
};
