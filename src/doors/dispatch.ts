import { randomUUID } from "node:crypto";
import { create, type DescMethod, type DescService, type Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import type { Logger } from "pino";
import { checkMethod } from "../access/permissions.ts";
import type { Caller } from "../domain/caller.ts";
import { Refusal, type Violation } from "../domain/refusal.ts";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import type { AnyHandler, Call, ServedService } from "../services/call.ts";
import { checkRequest } from "../services/request-rules.ts";
import { type CallScope, openScope } from "./deadline.ts";
import { type CallFailure, toCallFailure, violationsMessage } from "./errors.ts";

/** What a door knows of a call besides the request. */
export type Incoming = {
  readonly door: Door;
  /** The Authorization header. */
  readonly authorization?: string | undefined;
  /** Identifies the call in logs, events and answers; made by `traceIdOf`. */
  readonly traceId: string;
  /** Aborts when the caller leaves or the server shuts down, with what the call is to fail with. */
  readonly signal: AbortSignal;
  /** By when the caller wants the answer, if they said. */
  readonly deadline?: Date | undefined;
  /** Where the call comes from, for the log. */
  readonly peer: string;
};

/** A request as a door read it. */
export type Decoded = {
  readonly message: Message;
  /** What the door found broken already; what could be read is in the message. */
  readonly violations?: readonly Violation[];
};

/** Reads the request; what it throws refuses the call. */
export type ReadRequest = () => Decoded | Promise<Decoded>;

export type DispatcherOptions = {
  readonly services: readonly ServedService[];
  /** Throws a Refusal UNAUTHENTICATED for a token that does not verify. */
  readonly verifyToken: (token: string) => Promise<Caller>;
  readonly logger: Logger;
  readonly clock: () => Date;
  /** How long a unary call may take whose caller sets no deadline. */
  readonly defaultDeadlineMs: number;
  /** How long a unary call may take at most, whatever its caller says. */
  readonly maxDeadlineMs: number;
};

/**
 * Carries out calls, whichever door they came by: authenticates the caller, asks whether the method is open to them,
 * reads and checks the request, and calls the handler. The request is read only for a caller who may call the method.
 * Everything thrown is a CallFailure, and is logged.
 */
export type Dispatcher = {
  readonly services: readonly DescService[];
  unary(method: DescMethod, read: ReadRequest, incoming: Incoming): Promise<Message>;
  /** Ends by throwing when the caller leaves, the deadline passes or the server shuts down; never as if it were complete. */
  stream(method: DescMethod, read: ReadRequest, incoming: Incoming): AsyncGenerator<Message, void, undefined>;
};

type Endpoint = { readonly name: string; readonly handler: AnyHandler };

/** The dispatcher of these services. Throws if a service lacks a handler. */
export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { verifyToken, logger, clock, defaultDeadlineMs, maxDeadlineMs } = options;
  const services = options.services.map(({ desc }) => desc);
  const endpoints = endpointsOf(options.services);
  const validator = createWarmValidator(services);

  function unaryDeadline({ deadline }: Incoming, now: Date): Date {
    const wanted = deadline?.getTime() ?? now.getTime() + defaultDeadlineMs;
    return new Date(Math.min(wanted, now.getTime() + maxDeadlineMs));
  }

  /** The caller and the request, once both are found good. */
  async function admit({ name }: Endpoint, method: DescMethod, read: ReadRequest, authorization: string | undefined): Promise<{ caller: Caller; request: Message }> {
    const caller = await verifyToken(bearerToken(authorization));
    checkMethod(caller, name);
    const { message, violations = [] } = await read();
    const broken = [...violations, ...newViolations(violations, [...checkSchema(validator, method, message), ...checkRequest(message, clock())])];
    if (broken.length > 0) throw new Refusal("VALIDATION_FAILED", violationsMessage(broken), {}, broken);
    return { caller, request: message };
  }

  function callOf(caller: Caller, { name }: Endpoint, incoming: Incoming, signal: AbortSignal, deadline: Date | undefined): Call {
    const { door, traceId } = incoming;
    let child: Logger | undefined;
    return {
      caller,
      door,
      traceId,
      signal,
      ...(deadline && { deadline }),
      // Most calls write no line, and a child logger costs more than the rest of this object.
      get logger() {
        child ??= logger.child({ trace_id: traceId, method: name });
        return child;
      },
    };
  }

  function report(endpoint: Endpoint, incoming: Incoming, startedAt: Date, failure: CallFailure | undefined): void {
    const level = failure ? levelOf(failure) : "debug";
    if (!logger.isLevelEnabled(level)) return;
    const line = {
      trace_id: incoming.traceId,
      method: endpoint.name,
      door: Door[incoming.door],
      peer: incoming.peer,
      duration_ms: clock().getTime() - startedAt.getTime(),
      code: failure?.reason ?? "OK",
      ...(failure?.cause !== undefined && { err: failure.cause }),
    };
    logger[level](line, failure ? `call failed: ${failure.message}` : "call answered");
  }

  function endpointOf(method: DescMethod): Endpoint {
    const endpoint = endpoints.get(method);
    if (!endpoint) throw new Error(`${method.parent.typeName}/${method.name} is not served here`);
    return endpoint;
  }

  return {
    services,

    async unary(method, read, incoming) {
      const endpoint = endpointOf(method);
      const startedAt = clock();
      const deadline = unaryDeadline(incoming, startedAt);
      using scope = openScope(incoming.signal, deadline, startedAt);
      let subject = "";
      const answer = async () => {
        const { caller, request } = await admit(endpoint, method, read, incoming.authorization);
        subject = subjectOf(request);
        const answering = endpoint.handler(request, callOf(caller, endpoint, incoming, scope.signal, deadline));
        if (!(answering instanceof Promise)) throw new Error(`the handler of ${endpoint.name} streams`);
        return create(method.output, await answering);
      };
      try {
        const output = await scope.race(answer());
        report(endpoint, incoming, startedAt, undefined);
        return output;
      } catch (thrown) {
        const failure = failureOf(thrown, scope.signal, incoming.traceId, subject);
        report(endpoint, incoming, startedAt, failure);
        throw failure;
      }
    },

    async *stream(method, read, incoming) {
      const endpoint = endpointOf(method);
      const startedAt = clock();
      const { deadline } = incoming;
      using scope = openScope(incoming.signal, deadline, startedAt);
      let subject = "";
      try {
        const { caller, request } = await scope.race(admit(endpoint, method, read, incoming.authorization));
        subject = subjectOf(request);
        const answers = endpoint.handler(request, callOf(caller, endpoint, incoming, scope.signal, deadline));
        if (answers instanceof Promise) throw new Error(`the handler of ${endpoint.name} does not stream`);
        for await (const answer of untilAborted(answers, scope)) yield create(method.output, answer);
        scope.signal.throwIfAborted();
        report(endpoint, incoming, startedAt, undefined);
      } catch (thrown) {
        const failure = failureOf(thrown, scope.signal, incoming.traceId, subject);
        report(endpoint, incoming, startedAt, failure);
        throw failure;
      }
    },
  };
}

/** The caller's own x-request-id, if it is one that may be stored and logged, or a new one. */
export function traceIdOf(requestId: unknown): string {
  return typeof requestId === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(requestId) ? requestId : randomUUID();
}

function endpointsOf(services: readonly ServedService[]): ReadonlyMap<DescMethod, Endpoint> {
  const endpoints = new Map<DescMethod, Endpoint>();
  for (const { desc, handlers } of services) {
    for (const method of desc.methods) {
      const handler = handlers[method.localName];
      if (!handler) throw new Error(`${desc.typeName}/${method.name} has no handler`);
      endpoints.set(method, { name: `${desc.typeName}/${method.name}`, handler });
    }
  }
  return endpoints;
}

/** The first validation of a message compiles its rules, which takes milliseconds that no call should pay. */
function createWarmValidator(services: readonly DescService[]): Validator {
  const validator = createValidator();
  for (const { methods } of services) for (const { input } of methods) validator.validate(input, create(input));
  return validator;
}

function checkSchema(validator: Validator, { input }: DescMethod, message: Message): Violation[] {
  const result = validator.validate(input, message);
  if (result.kind === "error") throw result.error;
  if (result.kind === "valid") return [];
  return result.violations.map(({ field, ruleId, message: detail }) => {
    const [ruleField = "", ...rule] = ruleId.split(".");
    // A rule of the whole message is named "<field>.<rule>".
    return field.length > 0 ? { field: pathToString(field), rule: ruleId, detail } : { field: ruleField, rule: rule.join("."), detail };
  });
}

/** Leaves out what follows from a violation found earlier: a field that could not be read also looks empty. */
function newViolations(known: readonly Violation[], found: readonly Violation[]): readonly Violation[] {
  if (known.length === 0) return found;
  return found.filter(({ field }) => !known.some((earlier) => isWithin(field, earlier.field) || isWithin(earlier.field, field)));
}

function isWithin(path: string, outer: string): boolean {
  return path.startsWith(outer) && (path.length === outer.length || path[outer.length] === "." || path[outer.length] === "[");
}

function bearerToken(authorization: string | undefined): string {
  const token = authorization === undefined ? undefined : /^Bearer +([^\s]+)$/i.exec(authorization)?.[1];
  if (token === undefined) throw new Refusal("UNAUTHENTICATED", "a token is required: send the header Authorization: Bearer <token>");
  return token;
}

/** What the caller is told. Work that an aborted signal broke off fails in many ways; the signal knows why. */
function failureOf(thrown: unknown, signal: AbortSignal, traceId: string, subject: string): CallFailure {
  if (!signal.aborted || thrown instanceof Refusal) return toCallFailure(thrown, traceId, subject);
  const ended: unknown = signal.reason;
  // An HTTP request whose connection closes aborts without a reason of its own.
  return toCallFailure(ended instanceof Error && ended.name === "AbortError" ? new Refusal("CANCELLED", "the caller went away") : ended, traceId, subject);
}

/** What a request is about, for errors: the order, if it names one. */
function subjectOf(request: Message): string {
  return "orderId" in request && typeof request.orderId === "string" ? request.orderId : "";
}

function levelOf({ reason }: CallFailure): "debug" | "info" | "warn" | "error" {
  switch (reason) {
    case "INTERNAL":
      return "error";
    case "UNAVAILABLE":
    case "OVERLOADED":
    case "DEADLINE_EXCEEDED":
      return "warn";
    case "CONFLICT":
      return "info";
    default:
      return "debug";
  }
}

/** Passes answers on, but waits for none longer than until the scope ends. */
async function* untilAborted<Item>(items: AsyncIterable<Item>, { race }: CallScope): AsyncGenerator<Item, void, undefined> {
  const iterator = items[Symbol.asyncIterator]();
  let finished = false;
  try {
    for (;;) {
      const next = await race(iterator.next());
      if (next.done) {
        finished = true;
        return;
      }
      yield next.value;
    }
  } finally {
    // A generator that waits for something else than the signal ends when that comes: nobody should wait for it.
    if (!finished) iterator.return?.().catch(() => undefined);
  }
}
