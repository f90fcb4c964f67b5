"""HTTP over ASGI: a sync request costs one visit to a thread, an async one two."""

from autoforge.http.application import HttpApplication
from autoforge.http.lifespan import Lifespan
from autoforge.http.static import StaticFiles

__all__ = ["HttpApplication", "Lifespan", "StaticFiles"]
