"""Uses a cluster by gRPC as a service in Python does, with stubs that Google's compiler makes of wire/proto.

    client.py PROTO_DIR STUBS_DIR SCENARIO ADDRESS...

The scenario `whole` is for a cluster of which every replica runs, `alive` for any replica of it, and `alone` for the only one
that still runs.
"""

import ast
import queue
import sys
import threading
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

PROTOS, STUBS, SCENARIO, *ADDRESSES = sys.argv[1:]
PROTO = "isonomy/v1/decisions.proto"
assert protoc.main(["", f"-I{PROTOS}", f"--python_out={STUBS}", f"--grpc_python_out={STUBS}", PROTO]) == 0
sys.path.insert(0, STUBS)
from isonomy.v1 import decisions_pb2 as pb  # noqa: E402
from isonomy.v1.decisions_pb2_grpc import DecisionServiceStub  # noqa: E402

CODE = grpc.StatusCode
# Proposals of which nobody takes the answers, more than the replica reads ahead.
UNREAD = 3000
READ_AHEAD = 1024
# More proposals and answers than the windows of HTTP/2 and the buffers of the client hold.
IN_WINDOWS = 300
PATIENCE_S = 60


def refused(code, reason, call):
    """The details of a call that must be refused so: the retry delay in seconds, if there is one, and the message."""
    try:
        answer = call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        assert status is not None, f"{error.code()} without details: {error.details()}"
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        delay = None
        for detail in status.details:
            detail.Unpack(info)
            if detail.Unpack(retry):
                delay = retry.retry_delay.ToTimedelta().total_seconds()
        told = (error.code(), info.domain, info.reason)
        assert told == (code, "isonomy", reason), f"{told}: {error.details()}"
        return delay, error.details()
    raise AssertionError(f"{reason} expected, and answered: {answer}")


def proposal(key, value=b"\0\xff", **more):
    return pb.Proposal(key=key, value=value, **more)


def propose(stub, key, value=b"\0\xff", timeout=PATIENCE_S, **more):
    return stub.Propose(pb.ProposeRequest(proposal=proposal(key, value, **more)), timeout=timeout).outcome


def get(stub, key):
    return stub.GetDecision(pb.GetDecisionRequest(key=key), timeout=PATIENCE_S).decision


def decisions(stubs):
    one, two, three = stubs
    committed = propose(one, b"order/\xff").committed
    assert committed.key_seq == 1 and committed.key == b"", committed
    read = get(two, b"order/\xff")
    assert (read.value, read.key_seq, read.command_id) == (b"\0\xff", 1, committed.command_id), read
    rejected = propose(three, b"order/\xff", b"2", expected_seq=0).rejected
    assert (rejected.key_seq, rejected.value, rejected.shard) == (1, b"\0\xff", committed.shard), rejected
    assert propose(three, b"order/\xff", b"", expected_seq=1).committed.key_seq == 2
    assert get(one, b"order/\xff").value == b""
    deleted = one.Delete(pb.DeleteRequest(key=b"order/\xff")).deleted
    assert (deleted.key, deleted.key_seq) == (b"order/\xff", 2), deleted
    for call in (
        lambda: get(two, b"order/\xff"),
        lambda: two.Delete(pb.DeleteRequest(key=b"order/\xff")),
    ):
        refused(CODE.NOT_FOUND, "NO_DECISION", call)
    largest = b"x" * (1 << 20)
    assert propose(one, b"k" * 1024, largest).committed.key_seq == 1
    assert get(two, b"k" * 1024).value == largest


def names(stubs):
    one, two, three = stubs
    first = propose(one, b"", idempotency_key="8e03978e")
    assert first.committed.key == b"isonomy/request/key/8e03978e", first
    assert propose(two, b"", idempotency_key="8e03978e") == first
    refused(CODE.ALREADY_EXISTS, "OTHER_CONTENTS", lambda: propose(three, b"", b"2", idempotency_key="8e03978e"))
    pair = pb.RequestName(client_id="shop/1", request_id="7")
    first = propose(one, b"", request_name=pair)
    assert first.committed.key == b"isonomy/request/client/shop%2F1/7", first
    assert propose(three, b"", request_name=pair) == first
    first = propose(one, b"named", idempotency_key="once")
    propose(two, b"named", b"another")
    assert propose(three, b"named", idempotency_key="once") == first, "its first answer"
    assert get(one, b"named").key_seq == 2
    ended = one.Delete(pb.DeleteRequest(key=b"named", idempotency_key="end"))
    propose(two, b"named", b"again")
    assert three.Delete(pb.DeleteRequest(key=b"named", idempotency_key="end")) == ended
    assert get(one, b"named").value == b"again"


def wrong(stubs):
    stub, *_ = stubs
    argument = CODE.INVALID_ARGUMENT
    for reason, why, call in (
        ("BAD_FIELD", "proposal is missing", lambda: stub.Propose(pb.ProposeRequest())),
        ("BAD_FIELD", "1025 bytes", lambda: propose(stub, b"k" * 1025)),
        ("BAD_FIELD", "0 bytes", lambda: get(stub, b"")),
        ("BAD_FIELD", "without a key", lambda: propose(stub, b"", expected_seq=1)),
        ("BAD_FIELD", "belong to requests", lambda: propose(stub, b"isonomy/request/a")),
        ("BAD_FIELD", "201 bytes", lambda: propose(stub, b"k", idempotency_key="x" * 201)),
        ("TOO_LARGE", "1048577 bytes", lambda: propose(stub, b"k", b"x" * ((1 << 20) + 1))),
        ("TOO_LARGE", "at most", lambda: propose(stub, b"k", b"x" * (2 << 20))),
        ("BAD_FIELD", "shards go from 0 to 1", lambda: next(stub.Watch(pb.WatchRequest(shard=2)))),
        ("BAD_FIELD", "no offset", lambda: next(stub.Watch(pb.WatchRequest(behind="x")))),
    ):
        _, message = refused(argument, reason, call)
        assert why in message, message


def stream(stubs):
    """Each answer has its proposal's id, a key's proposals keep their order, and what is refused stops nobody."""
    count, keys = 4000, 50
    requests = [
        pb.ProposeStreamRequest(id=7 * n, proposal=proposal(b"stream %d" % (n % keys), b"%d" % n)) for n in range(count)
    ]
    requests.insert(count // 2, pb.ProposeStreamRequest(id=1))
    answers = {answer.id: answer for answer in stubs[1].ProposeStream(iter(requests), timeout=PATIENCE_S)}
    assert len(answers) == count + 1
    refusal = answers.pop(1).refusal
    assert (refusal.reason, refusal.code) == (pb.REASON_BAD_FIELD, CODE.INVALID_ARGUMENT.value[0]), refusal
    for n in range(count):
        assert answers[7 * n].outcome.committed.key_seq == n // keys + 1, answers[7 * n]
    assert get(stubs[2], b"stream 0").value == b"%d" % (count - keys)


def flow(stubs):
    """A sender whose answers nobody takes is read for no further than the limit, and gets them all when it takes them."""
    large, sent = b"x" * 8192, []
    propose(stubs[0], b"flow", large)

    def requests():
        for n in range(UNREAD):
            sent.append(n)
            # Rejected, with the large value.
            yield pb.ProposeStreamRequest(id=n, proposal=proposal(b"flow", large, expected_seq=0))

    channel = grpc.insecure_channel(ADDRESSES[0], [("grpc.http2.bdp_probe", 0)])
    answers = DecisionServiceStub(channel).ProposeStream(requests(), timeout=PATIENCE_S)
    began, beside = time.monotonic(), 0
    # Others are answered meanwhile.
    while len(sent) < READ_AHEAD or beside < UNREAD // 10:
        assert propose(stubs[0], b"beside").committed.key_seq > 0
        beside += 1
        assert time.monotonic() - began < PATIENCE_S, len(sent)
    assert len(sent) < READ_AHEAD + IN_WINDOWS, len(sent)
    ids = []
    for answer in answers:
        assert answer.outcome.rejected.value == large, str(answer)[:300]
        ids.append(answer.id)
    assert sorted(ids) == list(range(UNREAD))
    channel.close()


def dialogue(stubs):
    """An answer comes while the sender has more to say."""
    said = queue.SimpleQueue()
    answers = stubs[0].ProposeStream(iter(said.get, None), timeout=PATIENCE_S)
    for n in range(1, 4):
        said.put(pb.ProposeStreamRequest(id=n, proposal=proposal(b"dialogue")))
        answer = next(answers)
        assert (answer.id, answer.outcome.committed.key_seq) == (n, n), answer
    said.put(None)
    assert list(answers) == []


def watch(stubs):
    last = propose(stubs[0], b"the last", b"of its shard").committed

    def events(stub, **begin):
        all = []
        for event in stub.Watch(pb.WatchRequest(shard=last.shard, **begin), timeout=PATIENCE_S):
            assert event.WhichOneof("event") != "gap", event
            all.append(event)
            if event.decided.command_id == last.command_id:
                return all

    all = events(stubs[0], from_start=True)
    numbers = {}
    for event in all:
        if event.decided.key.startswith(b"stream"):
            assert event.decided.key_seq == numbers.get(event.decided.key, 0) + 1, event
            numbers[event.decided.key] = event.decided.key_seq
    assert len(numbers) > 1 and set(numbers.values()) == {80}, numbers
    for at in (0, 1, len(all) // 2, len(all) - 2):
        assert events(stubs[0], behind=all[at].offset, from_start=True) == all[at + 1 :], f"behind {all[at].offset}"
    assert len(events(stubs[1], behind=all[5].offset)) >= len(all) - 6
    # From now on nothing of that comes.
    coming = stubs[0].Watch(pb.WatchRequest(shard=last.shard), timeout=PATIENCE_S)
    key_seq = 0

    def decide():
        nonlocal key_seq
        while coming.is_active():
            key_seq = propose(stubs[0], b"the last", b"later").committed.key_seq
            time.sleep(0.01)

    decider = threading.Thread(target=decide)
    decider.start()
    event = next(coming)
    assert event.decided.value == b"later" and event.decided.key_seq > 1, event
    coming.cancel()
    decider.join()


def health(channels, expected):
    serving = health_pb2.HealthCheckResponse
    for channel in channels:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "isonomy.v1.DecisionService"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert serving.ServingStatus.Name(stub.Check(request).status) == expected
            assert serving.ServingStatus.Name(next(stub.Watch(request)).status) == expected


def reflection(channel):
    """A client without stubs finds the service, and decides by what it is told."""
    # The package knows v1alpha only; v1 has the same messages under another name.
    ask = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="isonomy.v1.DecisionService"),
    ]
    services, file = ask(iter(requests), timeout=PATIENCE_S)
    names = {service.name for service in services.list_services_response.service}
    expected = {"isonomy.v1.DecisionService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
    assert names == expected, names
    pool = descriptor_pool.DescriptorPool()
    for described in file.file_descriptor_response.file_descriptor_proto:
        pool.AddSerializedFile(described)
    method = pool.FindServiceByName("isonomy.v1.DecisionService").FindMethodByName("Propose")
    request = message_factory.GetMessageClass(method.input_type)()
    request.proposal.key = b"reflected"
    answer = message_factory.GetMessageClass(method.output_type)
    call = channel.unary_unary(
        "/isonomy.v1.DecisionService/Propose",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    assert call(request, timeout=PATIENCE_S).outcome.committed.key_seq == 1


def alone(stubs, channels):
    """Without a majority nothing is proposed, and what may have been is told as unknown."""
    health(channels, "NOT_SERVING")
    began = time.monotonic()
    while True:
        try:
            outcome = propose(stubs[0], b"lonely")
            raise AssertionError(f"decided alone: {outcome}")
        except grpc.RpcError as error:
            if error.code() == CODE.UNAVAILABLE:
                break
            # What a shard has taken before it gave the others up may still be decided.
            assert error.code() == CODE.DEADLINE_EXCEEDED, error
            assert time.monotonic() - began < PATIENCE_S
    delay, message = refused(CODE.UNAVAILABLE, "NO_QUORUM", lambda: propose(stubs[0], b"lonely"))
    assert delay is not None and delay > 0 and "nothing was proposed" in message, (delay, message)
    hurried = pb.ProposeStreamRequest(id=5, timeout_ms=100, proposal=proposal(b"lonely", idempotency_key="lonely"))
    refusal = next(stubs[0].ProposeStream(iter([hurried]))).refusal
    assert refusal.reason == pb.REASON_UNKNOWN_OUTCOME, refusal
    assert refusal.code == CODE.DEADLINE_EXCEEDED.value[0], refusal


def stubs_of_go():
    """The stubs that are checked in describe the contract; otherwise deploy/go/generate was forgotten."""
    with open(f"{PROTOS}/../../deploy/go/isonomyv1/decisions.pb.go") as file:
        literal = file.read().split('_proto_rawDesc = "" +\n')[1].split("\n\n")[0]
    described = b"".join(ast.literal_eval("b" + line.strip().removesuffix(" +")) for line in literal.splitlines())
    file, expected = descriptor_pb2.FileDescriptorProto.FromString(described), descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(expected)
    # Go is told besides how fields are called in JSON.
    for field in (field for message in file.message_type for field in message.field):
        field.ClearField("json_name")
    assert file == expected, "run deploy/go/generate"


channels = [grpc.insecure_channel(address) for address in ADDRESSES]
stubs = [DecisionServiceStub(channel) for channel in channels]
if SCENARIO == "whole":
    for step in (decisions, names, wrong, stream, flow, dialogue, watch):
        step(stubs)
        print(step.__name__, flush=True)
    health(channels, "SERVING")
    reflection(channels[0])
    stubs_of_go()
elif SCENARIO == "alive":
    assert propose(stubs[0], b"alive").committed.key_seq == 1
else:
    alone(stubs, channels)
print("all is as it should be")
