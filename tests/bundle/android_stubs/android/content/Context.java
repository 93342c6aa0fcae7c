package android.content;

import android.content.res.AssetManager;

/** The part of Android's class that bundles use: assets in a folder. */
public class Context {
  private final AssetManager assets;

  public Context(java.io.File folder) {
    assets = new AssetManager(folder);
  }

  public AssetManager getAssets() {
    return assets;
  }
}
