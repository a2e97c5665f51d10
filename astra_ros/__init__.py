"""astra_ros: a world model that answers "what will my cameras see if I do this?"."""

from pkgutil import extend_path

# The generated interfaces (astra_ros.msg, .srv, .action) may live in another prefix than this source tree.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
