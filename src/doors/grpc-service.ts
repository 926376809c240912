import { once } from "node:events";
import { type DescMethod, type DescService, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import {
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type Server,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type StatusObject,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { Refusal } from "../domain/refusal.ts";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { CALLER_LEFT, type WhenEnded, whenAborted } from "./deadline.ts";
import { type Dispatcher, type Incoming, REQUEST_ID_HEADER, traceIdOf } from "./dispatch.ts";
import { encodeStatus, toCallFailure } from "./errors.ts";
import { tooLarge } from "./json-body.ts";
import { grpcPeerOf } from "./peer.ts";
import { FORWARDED_FOR_HEADER } from "./proxies.ts";
import type { Decoded } from "./request-checker.ts";

export type GrpcServiceOptions = {
  readonly dispatcher: Dispatcher;
  /** Streams end with its reason when it aborts. */
  readonly stopping: AbortSignal;
  /** Larger messages are refused. */
  readonly maxRequestBytes: number;
  /** A stream is given up whose caller takes nothing for so long although something waits. */
  readonly stallTimeoutMs: number;
};

/** So many messages of a caller wait to be taken. */
const MOST_GATHERED = 256;
const NOBODY_READS = new Refusal("CANCELLED", "the answers are not read: the stream is given up");

/** Serves a service of the dispatcher on a grpc-js server. */
export function addService(server: Server, service: DescService, options: GrpcServiceOptions): void {
  server.addService(definitionOf(service), implementationOf(service, options));
}

/** The service as grpc-js wants it, but with requests as bytes: what does not decode is the caller's mistake, not INTERNAL. */
function definitionOf(service: DescService): ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      {
        path: `/${service.typeName}/${method.name}`,
        requestStream: method.methodKind === "bidi_streaming",
        responseStream: method.methodKind !== "unary",
        requestSerialize: (bytes: Buffer) => bytes,
        requestDeserialize: (bytes: Buffer) => bytes,
        responseSerialize: method.methodKind === "unary" ? encoderOf(method) : rememberingEncoderOf(method),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      },
    ]),
  );
}

function encoderOf({ output }: DescMethod): (message: Message) => Buffer {
  return (message) => asBuffer(toBinary(output, message));
}

/** Of a stream, many callers may get the same message, such as all who watch one order. */
function rememberingEncoderOf(method: DescMethod): (message: Message) => Buffer {
  const encode = encoderOf(method);
  const encoded = new WeakMap<Message, Buffer>();
  return (message) => {
    const known = encoded.get(message);
    if (known) return known;
    const bytes = encode(message);
    encoded.set(message, bytes);
    return bytes;
  };
}

function implementationOf(service: DescService, options: GrpcServiceOptions): UntypedServiceImplementation {
  return Object.fromEntries(
    service.methods.map((method) => {
      switch (method.methodKind) {
        case "unary":
          return [method.localName, unaryHandler(method, options)];
        case "server_streaming":
          return [method.localName, streamHandler(method, options)];
        case "bidi_streaming":
          return [method.localName, exchangeHandler(method, options)];
        default:
          throw new Error(`${service.typeName}/${method.name}: ${method.methodKind} methods are not supported on this door`);
      }
    }),
  );
}

function unaryHandler(method: DescMethod, { dispatcher, maxRequestBytes }: GrpcServiceOptions): handleUnaryCall<Buffer, Message> {
  return (call, callback) => {
    const incoming = incomingOf(call, (end) => call.on("cancelled", () => end(CALLER_LEFT)));
    dispatcher
      .unary(method, () => decode(method, call.request, maxRequestBytes), incoming)
      .then(
        (message) => {
          call.sendMetadata(requestIdMetadata(incoming));
          callback(null, message);
        },
        (thrown: unknown) => callback(statusOf(thrown, incoming)),
      );
  };
}

function streamHandler(
  method: DescMethod,
  { dispatcher, stopping, maxRequestBytes, stallTimeoutMs }: GrpcServiceOptions,
): handleServerStreamingCall<Buffer, Message> {
  return (call) => {
    const leaving = new AbortController();
    call.on("cancelled", () => leaving.abort(CALLER_LEFT));
    const incoming = incomingOf(call, whenAborted(AbortSignal.any([leaving.signal, stopping])));
    call.sendMetadata(requestIdMetadata(incoming));
    writeAll(
      call,
      dispatcher.stream(method, () => decode(method, call.request, maxRequestBytes), incoming),
      leaving,
      stallTimeoutMs,
    ).then(
      () => call.end(),
      (thrown: unknown) => call.emit("error", statusOf(thrown, incoming)),
    );
  };
}

function exchangeHandler(
  method: DescMethod,
  { dispatcher, stopping, maxRequestBytes, stallTimeoutMs }: GrpcServiceOptions,
): handleBidiStreamingCall<Buffer, Message> {
  return (call) => {
    const leaving = new AbortController();
    call.on("cancelled", () => leaving.abort(CALLER_LEFT));
    const incoming = incomingOf(call, whenAborted(AbortSignal.any([leaving.signal, stopping])));
    call.sendMetadata(requestIdMetadata(incoming));
    const requests = gathered(call, (bytes) => decode(method, bytes, maxRequestBytes).message);
    writeAll(call, dispatcher.exchange(method, requests, incoming), leaving, stallTimeoutMs).then(
      () => call.end(),
      (thrown: unknown) => call.emit("error", statusOf(thrown, incoming)),
    );
  };
}

/** What a caller sends, all that has come by the time it is asked for at once. The caller is held up when more comes than is taken. */
async function* gathered(call: ServerDuplexStream<Buffer, Message>, read: (bytes: Buffer) => Message): AsyncGenerator<readonly Message[]> {
  let waiting: Message[] = [];
  let ended = false;
  let failure: { readonly error: unknown } | undefined;
  let wake: (() => void) | undefined;
  call.on("data", (bytes: Buffer) => {
    try {
      if (!failure) waiting.push(read(bytes));
    } catch (error) {
      failure = { error };
    }
    if (waiting.length >= MOST_GATHERED) call.pause();
    wake?.();
  });
  call.on("end", () => {
    ended = true;
    wake?.();
  });
  for (;;) {
    if (waiting.length === 0 && !failure && !ended) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
      // The rest of what this turn of the event loop brings comes along.
      await new Promise((resolve) => setImmediate(resolve));
    }
    const taken = waiting;
    waiting = [];
    if (call.isPaused()) call.resume();
    if (taken.length > 0) yield taken;
    if (failure) throw failure.error;
    if (ended && waiting.length === 0) return;
  }
}

/** Writes no faster than the caller reads, and ends the call when that is too slow. */
async function writeAll(
  call: ServerWritableStream<Buffer, Message> | ServerDuplexStream<Buffer, Message>,
  messages: AsyncIterable<Message>,
  leaving: AbortController,
  stallTimeoutMs: number,
): Promise<void> {
  for await (const message of messages) {
    if (call.write(message)) continue;
    const timer = setTimeout(() => leaving.abort(NOBODY_READS), stallTimeoutMs);
    try {
      await once(call, "drain", { signal: leaving.signal });
    } catch (error) {
      // The next of the messages then fails, with the reason.
      if (!leaving.signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

type AnyCall = ServerUnaryCall<Buffer, Message> | ServerWritableStream<Buffer, Message> | ServerDuplexStream<Buffer, Message>;

function incomingOf(call: AnyCall, whenEnded: WhenEnded): Incoming {
  const { metadata } = call;
  return {
    door: Door.GRPC,
    authorization: textOf(metadata, "authorization"),
    traceId: traceIdOf(textOf(metadata, REQUEST_ID_HEADER)),
    whenEnded,
    timeoutMs: timeoutOf(call.getDeadline()),
    forwardedFor: metadata.get(FORWARDED_FOR_HEADER).join() || undefined,
    // Only the log and denials ask, and reading a certificate takes time.
    get peer() {
      return grpcPeerOf(call.getPeer(), call.getAuthContext().sslPeerCertificate);
    },
  };
}

function timeoutOf(deadline: Date | number): number | undefined {
  return deadline === Number.POSITIVE_INFINITY ? undefined : Math.max(0, deadline.valueOf() - Date.now());
}

function textOf(metadata: Metadata, key: string): string | undefined {
  return metadata.get(key)[0]?.toString();
}

function decode(method: DescMethod, bytes: Buffer, maxBytes: number): Decoded {
  if (bytes.length > maxBytes) throw tooLarge(maxBytes);
  try {
    return { message: fromBinary(method.input, bytes) };
  } catch {
    throw new Refusal("MALFORMED_REQUEST", `the message is not a ${method.input.typeName}: use the protos that reflection tells`);
  }
}

function requestIdMetadata({ traceId }: Incoming): Metadata {
  const metadata = new Metadata();
  metadata.set(REQUEST_ID_HEADER, traceId);
  return metadata;
}

function statusOf(thrown: unknown, incoming: Incoming): StatusObject {
  const failure = toCallFailure(thrown, incoming.traceId);
  const metadata = requestIdMetadata(incoming);
  metadata.set("grpc-status-details-bin", asBuffer(encodeStatus(failure)));
  return { code: failure.shape.code.valueOf(), details: failure.message, metadata };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
