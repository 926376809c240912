import { createKeyWrapper, type KeyWrapper } from "./key-wrapper.ts";
import { createDevelopmentMasterKeys, type MasterKeys, readMasterKeys } from "./master-key.ts";

/** Where the master keys are; without the first two, those of the development instance in dataDir, made on first use. */
export type MasterKeySettings = {
  readonly masterKeys: MasterKeys | undefined;
  readonly masterKeysFile: string | undefined;
  readonly dataDir: string;
};

/** Wraps under the master keys of the configuration; what files hold may change while it runs. Throws an Error when they cannot be read. */
export async function configuredKeyWrapper(settings: MasterKeySettings, clock: () => Date): Promise<KeyWrapper> {
  const { masterKeys, masterKeysFile, dataDir } = settings;
  if (masterKeys) return await createKeyWrapper(() => masterKeys, clock);
  if (masterKeysFile !== undefined) return await createKeyWrapper(() => readMasterKeys(masterKeysFile), clock);
  return await createKeyWrapper(() => createDevelopmentMasterKeys(dataDir), clock);
}
