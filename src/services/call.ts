import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  Message,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { Caller } from "../domain/caller.ts";
import type { Refusal, Violation } from "../domain/refusal.ts";
import type { Door } from "../gen/ordertrail/events/v1/values_pb.js";

/** What a handler knows of a call besides the request. */
export type Call = {
  /** Who calls; the method is open to their role. Whether the order is theirs is for the handler to check. Of role UNSPECIFIED for a public method. */
  readonly caller: Caller;
  /** The way by which the call came in. */
  readonly door: Door;
  /** Where the call comes from, as `peerText` has it. */
  readonly peer: string;
  /** Identifies the call in logs, events and answers: the caller's x-request-id, or a new one. */
  readonly traceId: string;
  /** Aborts when the caller leaves, the deadline passes or the server shuts down; its reason is what the caller is told. */
  readonly signal: AbortSignal;
  /** Aborts when the process is asked to end. A call that waits for something to happen should then stop waiting. */
  readonly stopping: AbortSignal;
  /** By when the caller wants the answer. Every unary call has one. */
  readonly deadline?: Date;
  /**
   * Looks at the caller's token again: it may have run out, or been revoked, since the call began. Throws what the call
   * would now be refused with. Costs next to nothing.
   */
  readonly reauthenticate: () => Promise<void>;
  /** Records that something was denied which does not end the call. Throws what the call is then refused with when there has been too much of it. */
  readonly recordDenial: (refusal: Refusal) => void;
  /** Writes a line at INFO, with the call's trace id and method. */
  readonly log: (what: object, message: string) => void;
};

/** Answers one request. The request is valid. Throws a Refusal for a "no"; anything else is a fault. */
export type UnaryHandler<M extends DescMethodUnary> = (
  request: MessageShape<M["input"]>,
  call: Call,
) => Promise<MessageInitShape<M["output"]>>;

/** Answers one request with a stream. At `call.signal` it must throw the signal's reason: returning would look complete. */
export type StreamHandler<M extends DescMethodServerStreaming> = (
  request: MessageShape<M["input"]>,
  call: Call,
) => AsyncIterable<MessageInitShape<M["output"]>>;

/** A message of a stream of requests, and which rules it breaks. */
export type Checked<Request extends Message = Message> = { readonly message: Request; readonly violations: readonly Violation[] };

/**
 * Answers a stream of requests with a stream. All requests that have come since it last asked come together, and whether one that
 * breaks a rule ends the call is for the handler to say. At `call.signal` it must throw the signal's reason.
 */
export type ExchangeHandler<M extends DescMethodBiDiStreaming> = (
  requests: AsyncIterable<readonly Checked<MessageShape<M["input"]>>[]>,
  call: Call,
) => AsyncIterable<MessageInitShape<M["output"]>>;

type Handler<M extends DescMethod> = M extends DescMethodUnary
  ? UnaryHandler<M>
  : M extends DescMethodServerStreaming
    ? StreamHandler<M>
    : M extends DescMethodBiDiStreaming
      ? ExchangeHandler<M>
      : never;

/** A handler for each method of a service, by the method's local name. */
export type ServiceHandlers<S extends DescService> = { readonly [Name in keyof S["method"]]: Handler<S["method"][Name]> };

/** A service and its handlers, whichever service it is. */
export type ServedService = {
  readonly desc: DescService;
  readonly handlers: { readonly [name: string]: AnyHandler };
};

/** Any handler. A method's type, so that handlers of particular requests are assignable to it. */
export type AnyHandler = {
  handle(request: Message | AsyncIterable<readonly Checked[]>, call: Call): Promise<AnyAnswer> | AsyncIterable<AnyAnswer>;
}["handle"];

type AnyAnswer = MessageInitShape<DescMessage>;

/** Joins a service with its handlers. */
export function served<S extends DescService>(desc: S, handlers: ServiceHandlers<S>): ServedService {
  return { desc, handlers: handlers as ServedService["handlers"] };
}
