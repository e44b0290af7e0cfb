"""Debian's Chromium, without a window, driven through its own driver."""

from selenium import webdriver
from selenium.webdriver.chrome.service import Service


def start(folder):
    """A browser with an empty profile in `folder`."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(flag)
    # The tests' certificates are their own authority.
    options.accept_insecure_certs = True
    service = Service("/usr/bin/chromedriver", log_output=str(folder / "chromedriver.log"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(40)
    driver.set_script_timeout(20)
    return driver
