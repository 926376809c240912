import { open, rename, rm } from "node:fs/promises";
import type { JsonValue } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import type { Command } from "commander";
import { writeMessage } from "../doors/json-writer.ts";
import { AuditService, CustomerOrderSchema, type ErasureReceipt, ErasureReceiptSchema } from "../gen/ordertrail/v1/audit_service_pb.js";
import { EXIT } from "./exit-codes.ts";
import { withInstance, write } from "./with-instance.ts";

/** Registers `privacy`: gives out all that is held on a customer, and forgets customers. */
export function registerPrivacy(program: Command): void {
  const command = program.command("privacy").description("give out all that is held on a customer, or forget a customer");

  const erase = command
    .command("erase")
    .description("forget a customer: destroy the keys of their personal data, and show the receipt; done again, it shows the same")
    .argument("<customer_id>")
    .option("--include-orders-under-way", "orders that have not ended lose their personal data, too; without it they are refused")
    .option("--json", "for programs");
  erase.action((customerId: string, { includeOrdersUnderWay = false, json }: { includeOrdersUnderWay?: boolean; json?: true }) =>
    withInstance(erase, async (transport) => {
      const { receipt } = await createClient(AuditService, transport).eraseCustomer({ customerId, includeOrdersUnderWay });
      if (!receipt) return erase.error("error: the instance gave no receipt", { exitCode: EXIT.failed });
      write(erase, json ? `${JSON.stringify(writeMessage(ErasureReceiptSchema, receipt))}\n` : tell(receipt));
    }),
  );

  const exporting = command
    .command("export")
    .description("write all that is held on a customer, as JSON")
    .argument("<customer_id>")
    .option("-o, --output <file>", "write it to this file, readable by its owner only, instead of showing it");
  exporting.action((customerId: string, { output }: { output?: string }) =>
    withInstance(exporting, async (transport) => {
      const parts = exported(createClient(AuditService, transport), customerId);
      if (output === undefined) {
        for await (const part of parts) write(exporting, part);
        return;
      }
      await writeWhole(output, parts);
    }),
  );
}

/** One JSON object, in parts: an order never waits in memory for the others. */
async function* exported(audit: Client<typeof AuditService>, customerId: string): AsyncGenerator<string, void, undefined> {
  let pageToken = "";
  let before = `{"customer_id":${JSON.stringify(customerId)},"orders":[`;
  let erasure: JsonValue = null;
  do {
    const page = await audit.exportCustomerData({ customerId, pageToken });
    for (const order of page.orders) {
      yield `${before}\n${JSON.stringify(writeMessage(CustomerOrderSchema, order))}`;
      before = ",";
    }
    if (page.erasure) erasure = writeMessage(ErasureReceiptSchema, page.erasure);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  yield `${before === "," ? "" : before}\n],"erasure":${JSON.stringify(erasure)}}\n`;
}

/** Puts a file in place when all of it is written. */
async function writeWhole(path: string, parts: AsyncIterable<string>): Promise<void> {
  const draft = `${path}.part`;
  try {
    await using file = await open(draft, "w", 0o600);
    for await (const part of parts) await file.write(part);
    await file.sync();
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
}

function tell({ customerId, requestedAt, requestedBy, erasedAt, position, keysDestroyed, orders, places }: ErasureReceipt): string {
  const at = (time: typeof requestedAt) => (time ? timestampDate(time).toISOString() : "");
  const removed = places.map(({ place, documents }) => `${documents} in ${place}`).join(", ");
  return [
    `customer ${customerId} is erased`,
    `  asked for  ${at(requestedAt)} by ${requestedBy?.subject ?? ""}`,
    `  done       ${at(erasedAt)}, entry ${position} of the log`,
    `  keys       ${keysDestroyed} destroyed`,
    `  orders     ${orders} stay, without personal data`,
    `  removed    ${removed}`,
    "",
  ].join("\n");
}
