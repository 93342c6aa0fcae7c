// Add to the app's build.gradle.kts. The runtime is the one the model was proven on when it was exported.
android {
    defaultConfig {
        minSdk = {{ min_sdk }} // or more
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    androidResources {
        noCompress += "tflite" // the model is mapped into memory as it lies in the package
    }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:{{ litert }}")
{% if gpu %}
    implementation("com.google.ai.edge.litert:litert-gpu:{{ litert }}")
{% endif %}
    androidTestImplementation("androidx.test.ext:junit:1.3.0")
    androidTestImplementation("androidx.test:runner:1.7.0")
}
