import { setTimeout as pause } from "node:timers/promises";
import { toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { type Command, InvalidArgumentError } from "commander";
import { loadConfig } from "../config.ts";
import { OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import {
  OrderTrackingService,
  type TrackingChange,
  TrackingChangeSchema,
  type WatchTrackingResponse,
} from "../gen/ordertrail/v1/order_tracking_service_pb.js";
import { parseIdentifier } from "./audit-arguments.ts";
import { auditorTokens, runningInstance } from "./audit-source.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance } from "./instance.ts";
import { grpcTransport } from "./instance-calls.ts";
import type { CalledInstance } from "./instance-ready.ts";

type WatchOptions = { readonly from?: number; readonly json?: true; readonly token?: string };

/** What another attempt may mend: the instance is starting anew, or the token has run out. */
const PASSING: readonly Code[] = [Code.Unavailable, Code.Aborted, Code.Canceled, Code.Unknown, Code.ResourceExhausted];
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 5000;

/** Registers `watch`: shows an order as it changes, until it has ended. */
export function registerWatch(program: Command): void {
  const command = program
    .command("watch")
    .description(
      `show an order as it changes, until it is DELIVERED or CANCELLED; goes on by itself when the instance starts anew; exit code ${EXIT.failed} when there is no such order`,
    )
    .argument("<order_id>", "the order", parseIdentifier)
    .option("--from <version>", "all that came after this version, 0 for everything; the order as it stands, if absent", parseVersion)
    .option("--json", "for programs: one JSON object a line, with the order after each change")
    .option("--token <token>", "by whom it is watched; an auditor of the development instance, if absent");
  command.action(async (orderId: string, { from, json, token }: WatchOptions) => {
    const write = (text: string) => command.configureOutput().writeOut?.(text);
    const { config, called } = await runningInstance(command);
    let version = from;
    let retryMs = FIRST_RETRY_MS;
    for (let instance: CalledInstance | undefined = called; ; instance = await calledInstance()) {
      try {
        if (!instance) throw new ConnectError(`no instance runs with the data in ${config.dataDir}`, Code.Unavailable);
        const tokens = token === undefined ? auditorTokens(config, instance.addresses) : async () => token;
        for await (const change of changesOf(instance, tokens, orderId, version)) {
          write(json ? `${JSON.stringify(toJson(TrackingChangeSchema, change, { useProtoFieldName: true }))}\n` : lineOf(change));
          version = change.order?.version ?? version;
          retryMs = FIRST_RETRY_MS;
        }
        return;
      } catch (error) {
        if (!(error instanceof ConnectError)) throw error;
        const passes = PASSING.includes(error.code) || (error.code === Code.Unauthenticated && token === undefined && version !== from);
        if (!passes) return command.error(`error: ${error.rawMessage}`, { exitCode: EXIT.failed });
        if (error.code !== Code.Unauthenticated) command.configureOutput().writeErr?.(`${error.rawMessage}; going on when it is back\n`);
        await pause(retryMs);
        retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
      }
    }
  });
}

/** The instance that runs now: one that has been started anew listens elsewhere. */
async function calledInstance(): Promise<CalledInstance | undefined> {
  const { dataDir, cliTls } = loadConfig();
  const instance = await findInstance(dataDir);
  return instance?.addresses && { ...instance, addresses: instance.addresses, tlsFiles: cliTls };
}

async function* changesOf(
  instance: CalledInstance,
  tokens: () => Promise<string>,
  orderId: string,
  fromVersion: number | undefined,
): AsyncGenerator<TrackingChange, void, undefined> {
  const authorize: Interceptor = (next) => async (request) => {
    request.header.set("authorization", `Bearer ${await tokens()}`);
    return await next(request);
  };
  const tracking = createClient(OrderTrackingService, grpcTransport(instance, [authorize]));
  for await (const message of tracking.watchTracking({ orderId, ...(fromVersion !== undefined && { fromVersion }) })) {
    const change = changeIn(message);
    if (change) yield change;
  }
}

function changeIn({ kind }: WatchTrackingResponse): TrackingChange | undefined {
  return kind.case === "change" ? kind.value : undefined;
}

function lineOf({ order, eventTypes, skippedVersions }: TrackingChange): string {
  const { updatedAt, version = 0, currentStatus = OrderStatus.UNSPECIFIED } = order ?? {};
  const at = updatedAt ? timestampDate(updatedAt).toISOString() : "";
  const happened = eventTypes.length > 0 ? eventTypes.join(", ") : "as it stands";
  const skipped = skippedVersions > 0 ? ` (and ${skippedVersions} more before)` : "";
  return `${at.padEnd(24)}  ${String(version).padStart(7)}  ${OrderStatus[currentStatus].padEnd(22)}  ${happened}${skipped}\n`;
}

function parseVersion(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("It must be a version of the order, or 0.");
  return Number(text);
}
