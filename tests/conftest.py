"""What all tests share: hypothesis without deadlines, because a first call may compile a kernel or load a library."""

from hypothesis import settings

settings.register_profile("textmill", deadline=None)
settings.load_profile("textmill")
