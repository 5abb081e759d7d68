"""A process as one that has compiled nothing for the CPU yet."""

from gpumlp.backend.cpu import compiler


def forget(monkeypatch):
    monkeypatch.setattr(compiler, "_toolchain", None)
    monkeypatch.setattr(compiler, "_locks", {})
    monkeypatch.setattr(compiler, "_loaded", {})
    monkeypatch.setattr(compiler, "_failure", None)
    compiler._tell.cache_clear()
