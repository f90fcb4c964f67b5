"""The one way in which local services fail."""


class ServiceError(RuntimeError):
    """A service could not be started; the message is a sentence the reader can act on."""
