import { ErrorCode, type Msg, NatsError } from "nats";
import type { Logger } from "pino";
import type { AdvisoryWriter } from "../log/advisory-writer.ts";
import { answerAppendRequest, decodeAppendResponse, encodeAppendRequest } from "../log/append-request.ts";
import type { Appender } from "../log/appender.ts";
import type { Forwarding } from "../log/forwarding.ts";
import type { NatsClient } from "./nats-client.ts";

/** How long the process that appends for all may take to answer before this one appends itself. */
const ANSWER_MS = 1000;

/** Asks the process that appends for all, over NATS, while there is a connection. */
export function createForwarding(nats: NatsClient, writer: AdvisoryWriter, prefix: string, logger: Logger): Forwarding {
  return {
    writer: () => (nats.connected() ? writer.current() : undefined),
    async forward(name, entries, known) {
      try {
        const connection = nats.connected();
        if (!connection) throw new Error("there is no connection to NATS");
        const answer = await connection.request(subjectOf(prefix, name), encodeAppendRequest(entries, known), { timeout: ANSWER_MS });
        const outcomes = decodeAppendResponse(answer.data, entries.length);
        // It is ending, or has a fault of its own.
        if (outcomes.includes(undefined)) writer.suspect(name);
        return outcomes;
      } catch (error) {
        const gone = error instanceof NatsError && error.code === ErrorCode.NoResponders;
        logger.warn({ ...(!gone && { err: error }), writer: name }, "the process that appends for all does not answer; appending here");
        writer.suspect(name);
        return entries.map(() => undefined);
      }
    },
  };
}

/** Answers other processes that want this one to append, for as long as the connection lives. */
export function serveAppendRequests(nats: NatsClient, appender: Appender, self: string, prefix: string, logger: Logger): void {
  nats.onConnected((connection) => {
    connection.subscribe(subjectOf(prefix, self), {
      callback: (error, message) => {
        if (error) logger.warn({ err: error }, "requests to append cannot be heard");
        else void answer(appender, message, logger);
      },
    });
  });
}

async function answer(appender: Appender, message: Msg, logger: Logger): Promise<void> {
  try {
    message.respond(await answerAppendRequest(appender, message.data));
  } catch (error) {
    logger.warn({ err: error }, "a request to append cannot be answered");
  }
}

function subjectOf(prefix: string, writer: string): string {
  return `${prefix}.append.${writer}`;
}
