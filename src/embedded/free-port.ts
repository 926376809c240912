import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";

const LOOPBACK = "127.0.0.1";

/** A TCP port of 127.0.0.1 that was free a moment ago: for servers that cannot choose one themselves. */
export async function findFreePort(): Promise<number> {
  return listenBriefly(0, LOOPBACK);
}

/** Rejects with the system's error, such as `EADDRINUSE`, when nothing can listen on a port; 0 stands for any. */
export async function assertPortFree(port: number, host: string = LOOPBACK): Promise<void> {
  await listenBriefly(port, host);
}

/** Whether something could listen on a port of 127.0.0.1 a moment ago. */
export async function isPortFree(port: number): Promise<boolean> {
  return assertPortFree(port).then(
    () => true,
    () => false,
  );
}

async function listenBriefly(port: number, host: string): Promise<number> {
  const server = createServer().listen(port, host);
  await once(server, "listening");
  const { port: taken } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return taken;
}
