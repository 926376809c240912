import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { ChannelWebhook } from "../../src/channels/channel.ts";

export type TakenWebhook = { readonly webhook: ChannelWebhook };

/** Takes the webhooks that come in, by any path. */
export type WebhookTaker = AsyncDisposable & { readonly url: string; readonly taken: TakenWebhook[] };

export async function startWebhookTaker(): Promise<WebhookTaker> {
  const taken: TakenWebhook[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const headers = new Map(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
      const { method = "", url: path = "" } = request;
      taken.push({ webhook: { method, url: `http://${request.headers.host}${path}`, headers, body: Buffer.concat(chunks) } });
      response.end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    taken,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
