from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('evaluations', '0002_waiting_workers_and_commands'),
    ]

    operations = [
        migrations.RenameField(model_name='runworker', old_name='lanes', new_name='slots'),
        migrations.AlterField(
            model_name='runworker',
            name='slots',
            field=models.PositiveIntegerField(default=0, help_text='How many calls it may be making.'),
        ),
    ]
