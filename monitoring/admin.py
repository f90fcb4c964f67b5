"""The operator's desk begins with the dashboard."""

from django.contrib import admin

admin.site.index_template = "monitoring/dashboard.html"
