import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Db } from "mongodb";
import { evolve, type OrderState, orderStream } from "../domain/order.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import type { AuditService } from "../gen/ordertrail/v1/audit_service_pb.js";
import { eventType, type RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import { scanLog } from "../log/scan.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { ServiceHandlers } from "./call.ts";
import { contextOf, explainEntries } from "./explain-entries.ts";
import { formatPageToken, pageLimit, parsePageToken } from "./page-token.ts";
import { presentOrders } from "./present-order.ts";

export type AuditReadingOptions = { readonly db: Db; readonly reader: LogReader; readonly keys: PersonalKeys };

/** The methods of AuditService that read the history. */
export type AuditReadingHandlers = Pick<ServiceHandlers<typeof AuditService>, "readLog" | "replayOrder" | "explainOrder">;

/** Clients take messages of 4 MiB; some messages wait on their way to a slow one, so each is small. */
const MAX_MESSAGE_BYTES = 256 * 1024;
/** A token that is no good any more ends the stream at the next message; where none comes, this does. */
const LONGEST_STREAM_MS = 60 * 60 * 1000;

/** Reads of the log and of an order's life in it. */
export function createAuditReadingHandlers({ db, reader, keys }: AuditReadingOptions): AuditReadingHandlers {
  return {
    async *readLog(request, call) {
      const { types, stream, actorRole, actorSubject, follow, recordedFrom, recordedBefore } = request;
      const until = performance.now() + LONGEST_STREAM_MS;
      const scanned = scanLog(db, reader, {
        after: Number(request.afterPosition),
        to: Number(request.toPosition),
        ...(types.length > 0 && { types }),
        ...(stream !== "" && { stream }),
        recordedFrom: recordedFrom && timestampDate(recordedFrom),
        recordedBefore: recordedBefore && timestampDate(recordedBefore),
        ...{ actorRole, actorSubject, follow },
        signal: call.signal,
      });
      for await (const { entries, position, target } of scanned) {
        await call.reauthenticate();
        const messages = inMessages(entries);
        const last = messages.pop() ?? [];
        for (const message of messages) {
          yield { entries: message.map(asStored), position: BigInt(message.at(-1)?.position ?? position), target: BigInt(target) };
        }
        yield { entries: last.map(asStored), position: BigInt(position), target: BigInt(target) };
        if (performance.now() > until) throw new Unavailable("this stream has lasted an hour: go on after its last position");
      }
    },

    async *replayOrder({ orderId, asOf }, call) {
      const until = asOf.case === "time" ? timestampDate(asOf.value) : undefined;
      let state: OrderState | undefined;
      for await (const batch of reader.readForward({ stream: orderStream(orderId), after: 0, signal: call.signal })) {
        for (const recorded of batch) {
          const { entry, position } = recorded;
          const { version, recordedAt } = entry;
          if (asOf.case === "version" && version > asOf.value) return;
          if (until && recordedAt && timestampDate(recordedAt) > until) {
            if (!state) throw notFound(orderId, "at that time");
            return;
          }
          for (const [eventIndex, event] of entry.events.entries()) {
            state = evolve(state, event, contextOf(recorded));
            const [order] = await presentOrders([{ state, version, position }], call.caller, keys);
            if (order) yield { entry: asStored(recorded), eventIndex, type: eventType(event), order };
          }
        }
      }
      if (!state) throw notFound(orderId);
    },

    async explainOrder({ orderId, pageSize, pageToken }, call) {
      const after = Number(parsePageToken(pageToken, ["number"], { orderId })?.[0] ?? 0);
      const entries = await reader.readStream(orderStream(orderId), 0);
      const newest = entries.at(-1)?.entry.version;
      if (newest === undefined) throw notFound(orderId);
      const commands = await explainEntries(orderId, entries, call.caller, keys);
      const page = commands.filter(({ version }) => version > after).slice(0, pageLimit(pageSize));
      const last = page.at(-1)?.version ?? newest;
      return { commands: page, nextPageToken: last < newest ? formatPageToken([last], { orderId }) : "" };
    },
  };
}

/** Entries in as many messages as their bytes need. */
function inMessages(entries: readonly RecordedEntry[]): RecordedEntry[][] {
  const messages: RecordedEntry[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const entry of entries) {
    if (bytes + entry.body.length > MAX_MESSAGE_BYTES) {
      messages.push([]);
      bytes = 0;
    }
    messages.at(-1)?.push(entry);
    bytes += entry.body.length;
  }
  return messages;
}

function asStored({ position, body }: RecordedEntry) {
  return { position: BigInt(position), body };
}

function notFound(orderId: string, when = ""): Refusal {
  return new Refusal("ORDER_NOT_FOUND", `there ${when === "" ? "is" : "was"} no order ${orderId} ${when}`.trim(), { order_id: orderId });
}
