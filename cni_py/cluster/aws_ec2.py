"""EC2 as `aws-vpc` uses it: looking at route tables and interfaces, and changing them.

boto3 is loaded by the first call. It tries again with pauses that grow, also when it is throttled.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from cni_py.spec.errors import CniError, Code

from .aws_routes import TAG, Interface, Mark, Route, Tables, parse_mark
from .vetting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.addresses import Network

    from .aws_metadata import Instance

# Of one request: to connect, to hear something; in seconds. How often it is sent at most.
_CONNECT, _READ, _ATTEMPTS = 3, 10, 4
# EC2 takes no more values in one filter.
_VALUES = 200
_DENIED = frozenset({
    "AccessDenied", "AuthFailure", "ExpiredToken", "InvalidClientTokenId", "OptInRequired",
    "RequestExpired", "SignatureDoesNotMatch", "UnauthorizedOperation",
})  # fmt: skip
_PASSING = frozenset({
    "EC2ThrottledException", "InternalError", "RequestLimitExceeded", "ServiceUnavailable",
    "Throttling", "ThrottlingException", "Unavailable",
})  # fmt: skip
_TARGETS = (
    "NetworkInterfaceId", "InstanceId", "GatewayId", "NatGatewayId", "TransitGatewayId",
    "VpcPeeringConnectionId", "LocalGatewayId", "CarrierGatewayId", "EgressOnlyInternetGatewayId",
    "CoreNetworkArn", "OdbNetworkArn",
)  # fmt: skip


class Ec2:
    """Calls for one instance. Each method raises CniError."""

    def __init__(self, instance: Instance) -> None:
        """Raises CniError 50 without boto3."""
        session = _session()
        from botocore.config import Config

        self._instance = instance
        config = Config(
            connect_timeout=_CONNECT,
            read_timeout=_READ,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        )
        with _explained("make a client"):
            self._client = session.client("ec2", region_name=instance.region, config=config)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def look(self, configured: tuple[str, ...]) -> Tables:
        """The tables of those names, or else the one that the own interface's subnet uses."""
        own = self._own()
        found = self._named(configured) if configured else self._discovered(own)
        for one in found:
            if one.get("VpcId") != own.vpc:
                msg = f"the route table {one['RouteTableId']} is not in this node's VPC {own.vpc}"
                raise CniError(Code.INVALID_CONFIG, msg, key="Backend.RouteTableID")
        routes = tuple(_routes(found))
        marked = self._marked(own)
        dark = {
            one.target
            for one in routes
            if one.is_blackhole and one.target.startswith("eni-") and one.target not in marked
        } - {own.name}
        names = tuple(sorted(str(one["RouteTableId"]) for one in found))
        return Tables(names, routes, own, marked, self._gone(dark))

    def put(self, route: Route, *, instead: bool) -> None:
        """Create the route, or replace one."""
        action = "replace_route" if instead else "create_route"
        details = f"{route.table} is full: ask AWS for more routes in a table (50 unless told)"
        with _explained(f"{action.replace('_', ' ')} {route.destination}", details):
            getattr(self._client, action)(
                RouteTableId=route.table, NetworkInterfaceId=route.target, **_destination(route)
            )

    def delete(self, route: Route) -> None:
        """Delete the route, unless it has been replaced or deleted meanwhile."""
        present = list(_routes(self._named((route.table,))))
        if route not in present:
            return
        with _explained(f"delete the route to {route.destination}"):
            try:
                self._client.delete_route(RouteTableId=route.table, **_destination(route))
            except self._client.exceptions.ClientError as error:
                if _code(error) != "InvalidRoute.NotFound":
                    raise

    def mark(self, interface: str, mark: Mark) -> None:
        """Give the own interface our tag."""
        with _explained("tag the network interface"):
            self._client.create_tags(Resources=[interface], Tags=[{"Key": TAG, "Value": str(mark)}])

    def unmark(self, interface: str) -> None:
        """Take our tag away."""
        with _explained("remove a tag of the network interface"):
            self._client.delete_tags(Resources=[interface], Tags=[{"Key": TAG}])

    def set_check(self, interface: str, *, on: bool) -> None:
        """Whether the interface may only have packets of its own addresses."""
        with _explained("set the source/destination check"):
            self._client.modify_network_interface_attribute(
                NetworkInterfaceId=interface, SourceDestCheck={"Value": on}
            )

    def _own(self) -> Interface:
        name = self._instance.interface
        with _explained("look at the network interface"):
            answer = self._client.describe_network_interfaces(NetworkInterfaceIds=[name])
        one = answer["NetworkInterfaces"][0]
        return Interface(name, one["VpcId"], one["SubnetId"], one["SourceDestCheck"], _mark(one))

    def _marked(self, own: Interface) -> dict[str, Mark]:
        filters = [_filter("vpc-id", own.vpc), _filter("tag-key", TAG)]
        found: dict[str, Mark] = {}
        for one in self._interfaces(filters):
            mark = _mark(one)
            if mark is not None and one["NetworkInterfaceId"] != own.name:
                found[one["NetworkInterfaceId"]] = mark
        return found

    def _gone(self, names: set[str]) -> frozenset[str]:
        left = set(names)
        every = sorted(names)
        for start in range(0, len(every), _VALUES):
            some = every[start : start + _VALUES]
            for one in self._interfaces([_filter("network-interface-id", *some)]):
                left.discard(one["NetworkInterfaceId"])
        return frozenset(left)

    def _interfaces(self, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        with _explained("look at network interfaces"):
            pages = self._client.get_paginator("describe_network_interfaces")
            for page in pages.paginate(Filters=filters):
                yield from page["NetworkInterfaces"]

    def _named(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        with _explained("look at route tables"):
            pages = self._client.get_paginator("describe_route_tables")
            return [one for page in pages.paginate(RouteTableIds=list(names))
                    for one in page["RouteTables"]]  # fmt: skip

    def _discovered(self, own: Interface) -> list[dict[str, Any]]:
        """The subnet's table, or the VPC's main one, which subnets without one use."""
        for filters in (
            [_filter("association.subnet-id", own.subnet)],
            [_filter("association.main", "true"), _filter("vpc-id", own.vpc)],
        ):
            with _explained("look at route tables"):
                found = self._client.describe_route_tables(Filters=filters)["RouteTables"]
            if found:
                return list(found)
        msg = f"the subnet {own.subnet} has no route table that can be seen"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "name one: RouteTableID")


@cache
def _session() -> Any:
    """It keeps what it has read of EC2's description, which takes a third of a second."""
    try:
        import boto3
    except ImportError as error:
        msg = "the backend aws-vpc needs boto3, which is not installed"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "install cni-py[aws]") from error
    return boto3.session.Session()


@contextmanager
def _explained(what: str, full: str = "") -> Iterator[None]:
    """boto3's errors as CniError: 50 for what somebody has to change, 11 for what passes."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        code = _code(error)
        said = quoted(str(error.response.get("Error", {}).get("Message", "")))
        if code in _DENIED:
            msg = f"AWS does not let this node {what}: {code}"
            details = "its role needs the policy of cni-py's page on backends"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details) from None
        if code in _PASSING:
            msg = f"AWS is too busy to {what}: {code}"
            raise CniError(Code.TRY_AGAIN_LATER, msg, "it is tried again") from None
        if code == "RouteLimitExceeded":
            msg = f"the route table is full: AWS does not {what}"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, full) from None
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, f"AWS cannot {what}: {code}", said) from None
    except NoCredentialsError:
        msg = f"this node has no credentials for AWS to {what}"
        details = "give the instance a role, with the policy of cni-py's page on backends"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details) from None
    except BotoCoreError as error:
        msg = f"AWS cannot be asked to {what}: {type(error).__name__}"
        raise CniError(Code.TRY_AGAIN_LATER, msg, ascii(str(error))[1:-1]) from None


def _code(error: Any) -> str:
    return ascii(error.response.get("Error", {}).get("Code", ""))[1:-1][:60]


def _filter(name: str, *values: str) -> dict[str, Any]:
    return {"Name": name, "Values": list(values)}


def _mark(interface: dict[str, Any]) -> Mark | None:
    tags = {one["Key"]: one["Value"] for one in interface.get("TagSet", ())}
    return parse_mark(tags[TAG]) if TAG in tags else None


def _routes(tables: Iterable[dict[str, Any]]) -> Iterator[Route]:
    for table in tables:
        for one in table.get("Routes", ()):
            text = one.get("DestinationCidrBlock") or one.get("DestinationIpv6CidrBlock")
            if not text:
                # A prefix list, which is nobody's subnet.
                continue
            destination: Network = ip_network(text, strict=False)
            target = next((str(one[key]) for key in _TARGETS if one.get(key)), "")
            yield Route(table["RouteTableId"], destination, target, one.get("State") == "blackhole")


def _destination(route: Route) -> dict[str, str]:
    key = "DestinationCidrBlock"
    if route.destination.version == 6:
        key = "DestinationIpv6CidrBlock"
    return {key: str(route.destination)}
