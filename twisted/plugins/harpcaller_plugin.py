"""Makes ``twistd harpcaller`` known; everything else is in harpcaller.service."""

from twisted.application.service import ServiceMaker

harpcaller = ServiceMaker(
    "harpcaller", "harpcaller.service", "Dispatch calls to harpd and keep results.", "harpcaller"
)
