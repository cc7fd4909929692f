"""The options that say where the registry of services is: the agent's store, or a Consul."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.services.opening import opening
from cni_py.services.skydns import DOMAIN, PREFIX

from .agent_options import ETCD, PATH, STORE, no_client, own_option, secret_in, with_options
from .group import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.services.opening import Opening

REGISTRY = (
    own_option(
        "--registry",
        default="",
        help="consul:URL has a Consul's agent for the services instead of the store.",
    ),
    own_option("--consul-token-file", type=PATH, default="", help="The file with the ACL token."),
    own_option("--consul-cafile", type=PATH, default="", help="Who signed Consul's certificate."),
    own_option("--consul-certfile", type=PATH, default="", help="The certificate to show Consul."),
    own_option("--consul-keyfile", type=PATH, default="", help="Its key."),
    own_option(
        "--services-domain",
        default=DOMAIN,
        show_default=True,
        help="The zone of CoreDNS's plugin etcd that the services are in.",
    ),
    own_option(
        "--services-path",
        default=PREFIX,
        show_default=True,
        help="Where that plugin looks for its keys.",
    ),
)


def registry_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where the services are."""
    return with_options((*ETCD, STORE[-1], *REGISTRY), command)


def registry_opening(given: dict[str, Any]) -> Opening:
    """The registry that the options tell of. Raises Unreadable, Failed, OSError."""
    for option, kind, form in (("registry", "consul", "URL"), ("store", "sqlite", "PATH")):
        if given[option] and not given[option].startswith(f"{kind}:"):
            raise Unreadable(f"--{option} {given[option]!r} is not {kind}:{form}")
    where = given["registry"] or given["store"] or f"etcd:{given['etcd_endpoints']}"
    if given["registry"]:
        options = {
            "token": secret_in(given["consul_token_file"]),
            "ca": given["consul_cafile"],
            "certificate": given["consul_certfile"],
            "key": given["consul_keyfile"],
        }
    else:
        options = {
            "ca": given["etcd_cafile"],
            "certificate": given["etcd_certfile"],
            "key": given["etcd_keyfile"],
            "user": given["etcd_username"],
            "password": secret_in(given["etcd_password_file"]),
        }
    domain, prefix = given["services_domain"], given["services_path"]
    try:
        return opening(where, domain=domain, prefix=prefix, **options)
    except ImportError as error:
        raise no_client(error) from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
