"""Makes ``twistd harpd`` known; everything else is in harpd.service."""

from twisted.application.service import ServiceMaker

harpd = ServiceMaker("harpd", "harpd.service", "Run the procedures of this machine.", "harpd")
