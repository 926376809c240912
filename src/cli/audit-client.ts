import { type Client, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import type { Command } from "commander";
import { AuditService } from "../gen/ordertrail/v1/audit_service_pb.js";
import { auditorTokens, runningInstance } from "./audit-source.ts";
import { EXIT } from "./exit-codes.ts";
import { grpcTransport } from "./instance-calls.ts";

/** Does something with the AuditService of the running instance, as an auditor. What the instance refuses is the command's error. */
export async function withAuditService(
  command: Command,
  token: string | undefined,
  use: (audit: Client<typeof AuditService>) => Promise<void>,
): Promise<void> {
  const { config, called } = await runningInstance(command);
  const tokens = token === undefined ? auditorTokens(config, called.addresses) : async () => token;
  const authorize: Interceptor = (next) => async (request) => {
    request.header.set("authorization", `Bearer ${await tokens()}`);
    return await next(request);
  };
  try {
    await use(createClient(AuditService, grpcTransport(called, [authorize])));
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    command.error(`error: ${error.rawMessage}`, { exitCode: EXIT.failed });
  }
}
