// For a container's health check: as `ordertrail status`, in a fifth of the time, as it loads no more than it needs.
import { findInstance } from "./cli/instance.ts";
import { isReady } from "./cli/instance-ready.ts";
import { loadConfig } from "./config.ts";

const { dataDir, cliTls } = loadConfig();
const instance = await findInstance(dataDir);
const ready = instance?.addresses !== undefined && (await isReady({ ...instance, addresses: instance.addresses, tlsFiles: cliTls }));
process.exitCode = ready ? 0 : 1;
